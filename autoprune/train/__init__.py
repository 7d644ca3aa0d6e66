"""Training with gradient steps: short fine-tunes of the networks that are scored, and recovery (recovery/)."""
