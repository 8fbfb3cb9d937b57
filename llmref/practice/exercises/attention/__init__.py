"""Exercises on attention."""
