"""Several processes that train together: their start by torch's elastic launcher, their end, their one answer."""
