"""What single commands show: plan, prediction, estimate, frontier, gate, two runs side by side."""
