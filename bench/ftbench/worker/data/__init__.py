"""Data: files are found, read with one set of types, checked, split into two pools, and tokenised."""
