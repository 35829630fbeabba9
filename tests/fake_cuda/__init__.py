"""A fake CUDA device, compiled when tests run: what the emulation in `ftbench.predict` is checked against."""
