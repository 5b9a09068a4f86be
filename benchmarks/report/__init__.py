"""Figures as files and tables."""
