"""Pruning in rounds: zeros are put into weights a bit at a time, with training in between."""
