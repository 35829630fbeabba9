"""The speed of this worker's device, kernel by kernel."""
