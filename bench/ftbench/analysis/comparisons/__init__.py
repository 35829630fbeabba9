"""Cells and runs against each other: differences that noise does not explain."""
