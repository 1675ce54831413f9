"""Training runs: trainer, optimization, checkpoints, result folder, model cards, logging."""
