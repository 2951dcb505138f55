"""What every training run shares: progress, checkpoints and the metrics log."""
