"""The plan: a profile becomes a grid of cells. Imports neither torch nor records."""
