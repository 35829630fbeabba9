"""Runs cells in worker processes, and turns their answers into records."""
