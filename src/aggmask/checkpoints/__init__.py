"""Weights on disk: those that others published."""
