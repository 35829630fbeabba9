"""The life of a worker process: its start, its link to the parent, its failures."""
