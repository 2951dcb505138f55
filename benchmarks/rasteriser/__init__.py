"""What the benchmarks of the rasteriser share."""
