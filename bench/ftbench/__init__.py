"""ftbench: benchmarks and resource profiles of full-parameter fine-tuning."""

__version__ = "0.1.0"
