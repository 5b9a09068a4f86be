"""From views of a data set to the shift between them."""
