"""Laws fitted to tables, with intervals, tried on cells that they were not given."""
