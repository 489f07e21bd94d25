"""Training code shared by the examples: trainer, settings, checkpoints, batches, seeds."""
