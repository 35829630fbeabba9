"""A snapshot of a card's memory that torch has written: read, and compared with the prediction of the same run."""
