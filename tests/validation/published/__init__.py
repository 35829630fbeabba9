"""Tables of many sources, at a resolution of 0.1 to 1 GB: what each row states, and why it is not predicted."""
