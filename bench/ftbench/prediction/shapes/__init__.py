"""From five traces to every batch size and length: the events stay the same, and the sizes follow formulas."""
