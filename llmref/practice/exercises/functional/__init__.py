"""Exercises on functions that losses and layers are made of."""
