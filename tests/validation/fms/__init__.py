"""Published runs of fms-acceleration: peaks of allocated memory in bytes, of SFT on A100 cards."""
