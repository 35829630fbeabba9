"""The process beside a worker that samples what has no peak of its own: NVML and PSS."""
