"""Recorded training runs: they can be repeated and differentiated."""
