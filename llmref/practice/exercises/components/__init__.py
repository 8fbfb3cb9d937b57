"""Exercises on the components of a transformer."""
