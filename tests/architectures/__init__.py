"""Architectures of transformers in their tasks, predicted and compared with the CPU's allocator."""
