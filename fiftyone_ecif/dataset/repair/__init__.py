"""What is done about the suspects: review, fixes, export."""
