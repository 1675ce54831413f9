"""How a run works: trainer, optimisation, checkpoints, folder, cards, logs."""
