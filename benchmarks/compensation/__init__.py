"""The parts of benchmarks/rivals.py: the setting every method is measured in, and one module for each rival.

`prune(setting, target, ...)` of a rival returns a network with at most that share of the dense MACs, made without a
gradient step. Rivals are imported when they run, so that each needs only its own package. Nothing here is imported by
autoprune.
"""
