"""Starter: a first profile for data that nobody has described. Columns are guessed, and a grid is chosen. Pure."""
