"""What a cell is measured with: phases, steps, meters and the statistics of steps."""
