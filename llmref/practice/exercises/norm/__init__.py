"""Exercises on norms."""
