"""The process beside a worker that samples memory for which nobody keeps a peak: NVML and PSS."""
