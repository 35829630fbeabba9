"""The self-check: rows of checks on a machine with a card, one process each, and one page of what they found."""
