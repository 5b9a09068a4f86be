"""Predicted outcomes of training against heads and models that were trained from scratch on other pairs."""
