"""Shift risk measured: published results, real answers, made shifts and natural ones."""
