"""The data that is written: records, their invariants, predictions, and messages between processes."""
