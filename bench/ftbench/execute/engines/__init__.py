"""Engines: they run worker processes."""
