"""Tasks: how texts and labels become training examples, and how a model's answers are scored."""
