"""Runs that people reported when they wrote about memory, and whether a command of ftbench predicts them."""
