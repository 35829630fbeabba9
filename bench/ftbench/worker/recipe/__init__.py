"""The fine-tune itself, as the exercise has it: data, model, method, Trainer, metrics."""
