"""Training: the stages, the Accelerate loop around them, checkpoints, and what is saved afterwards."""
