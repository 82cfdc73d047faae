"""Training: options, loop, checkpoints, reports."""
