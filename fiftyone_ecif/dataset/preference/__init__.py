"""Preference pairs on a FiftyOne dataset: from what is asked of each sample to a run with its pairs."""
