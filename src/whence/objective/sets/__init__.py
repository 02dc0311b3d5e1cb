"""Measures of a whole set of queries."""
