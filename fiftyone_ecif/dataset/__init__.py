"""The FiftyOne side: pairs out of a data set, scores into it, and what can be asked of a run."""
