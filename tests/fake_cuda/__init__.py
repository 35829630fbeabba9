"""A fake CUDA device, compiled when tests run: what the emulation in `bench.predict` is checked against."""
