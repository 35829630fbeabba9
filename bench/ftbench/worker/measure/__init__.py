"""Measurement of a cell: phases, steps, meters, and the statistics of steps."""
