"""The wheel under the lowest and the newest versions that pyproject.toml allows."""
