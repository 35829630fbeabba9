"""The output of single commands: plan, prediction, estimate, frontier, gate, two runs side by side."""
