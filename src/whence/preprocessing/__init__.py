"""Transformers of scikit-learn fitted again, and their statistics as functions of the data."""
