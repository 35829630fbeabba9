"""Cells go out to worker processes, records come back."""
