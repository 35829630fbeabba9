"""Prediction: what a training step will need of a card, found without one."""
