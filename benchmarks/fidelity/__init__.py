"""Predicted removals against real refits."""
