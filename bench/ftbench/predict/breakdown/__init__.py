"""What a peak consists of, by part of the model, operator and line."""
