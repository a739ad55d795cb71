"""How fast training and inference are, against what the hardware can do: `python -m benchmarks`."""
