"""The fine-tuning recipe: data, model, method, Trainer, metrics."""
