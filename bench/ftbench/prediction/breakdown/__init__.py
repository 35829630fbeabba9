"""The breakdown of a peak by part of the model, operator and line of code."""
