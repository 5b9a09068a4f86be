"""Failing queries traced to planted pairs."""
