"""Five traces become every batch size and length: which events are the same, and how sizes grow."""
