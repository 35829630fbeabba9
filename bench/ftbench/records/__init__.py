"""What is written down: records, predictions, messages between processes, and what makes them believable."""
