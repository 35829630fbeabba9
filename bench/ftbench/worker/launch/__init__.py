"""Several processes that train together: their start by torch's elastic launcher, their end, their answers in one."""
