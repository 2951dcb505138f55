"""What every training run shares: the loop, processes, schedules, checkpoints, metrics."""
