"""What is learned: how text and labels become a fine-tune, and how its answers are scored."""
