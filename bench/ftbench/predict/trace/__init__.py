"""What the steps of a real Trainer allocate, traced without a GPU and without memory."""
