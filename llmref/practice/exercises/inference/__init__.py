"""Exercises on inference."""
