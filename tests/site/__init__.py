"""The documentation site: its pages, its reference, which is made from the code, and a check of what was built."""
