"""Whether the numbers that somebody acts on hold: values and their errors, probabilities, suggestions."""
