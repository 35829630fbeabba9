"""Simulation of a card: from a trace's events to its peaks, with workspaces and the caching allocator."""
