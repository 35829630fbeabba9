"""Memory, and measured runs, held to what a person accepted."""
