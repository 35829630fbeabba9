"""What is asked for: a profile becomes a grid of cells. Light: no torch, no records."""
