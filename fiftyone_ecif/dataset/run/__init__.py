"""A run: its record in the database, its tensors on disk, and what it knows."""
