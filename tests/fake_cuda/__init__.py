"""A fake CUDA device, compiled when tests run: what the emulation in `ftbench.prediction` is checked against."""
