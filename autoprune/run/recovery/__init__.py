"""The recovery of networks of a front: their training, its checkpoints, and what the run folder has of it."""
