"""First look: the columns and texts of a data set, and the time of steps on it, before there is a profile."""
