"""Recorded trainings."""
