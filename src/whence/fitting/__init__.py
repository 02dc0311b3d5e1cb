"""Exact refits."""
