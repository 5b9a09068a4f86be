"""Misaligned pairs found, against baselines."""
