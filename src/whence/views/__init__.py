"""Conversion of results to the records that pages show."""
