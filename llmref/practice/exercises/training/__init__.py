"""Exercises on training."""
