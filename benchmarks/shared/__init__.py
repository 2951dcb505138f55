"""What benchmarks of several areas share."""
