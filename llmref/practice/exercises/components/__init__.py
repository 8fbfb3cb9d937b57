"""Exercises on the parts of a model."""
