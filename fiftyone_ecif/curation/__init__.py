"""The FiftyOne side: pairs out of a dataset, scores into it, runs and views."""
