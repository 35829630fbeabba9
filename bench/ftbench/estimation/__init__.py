"""A run that was not made: from fits, predictions and a roofline."""
