"""The page of the claim about memory: what it says, and in which order."""
