"""Answers of workers that are kept: for what question, whether it still holds, and where."""
