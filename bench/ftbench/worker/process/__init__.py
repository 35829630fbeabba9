"""How a worker process begins, stays bound to its parent, and ends."""
