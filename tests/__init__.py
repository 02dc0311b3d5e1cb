"""Tests, a package of its own: other distributions install a folder of this name."""
