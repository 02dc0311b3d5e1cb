"""One short adapter for each library, used as its own documentation says.

Each has `METHODS`: by name, a function (problem, setting) that prepares and returns how to ask. It
runs in its library's own environment, which has no need of whence.
"""
