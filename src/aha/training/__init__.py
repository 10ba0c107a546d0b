"""What every training loop shares: processes, checkpoints, progress, stages. The package itself loads no torch."""
