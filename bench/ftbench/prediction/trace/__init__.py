"""Traces of the allocations in a real Trainer's steps, taken without a GPU and without memory."""
