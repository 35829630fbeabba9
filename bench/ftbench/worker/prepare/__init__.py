"""Preparation before the first cell: the environment, the model's size, the tokenised data."""
