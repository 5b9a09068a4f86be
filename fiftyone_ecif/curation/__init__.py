"""Where version 0.1's FiftyOne side was: the records of its runs, in people's databases, name their classes here."""
