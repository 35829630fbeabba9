"""Every sequence classifier of transformers, predicted and compared with the CPU's allocator."""
