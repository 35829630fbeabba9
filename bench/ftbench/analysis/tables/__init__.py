"""Records as tables: one row per record, per phase, per point of an axis."""
