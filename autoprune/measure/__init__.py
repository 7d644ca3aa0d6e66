"""Turns a pruned network into numbers: batches, fitness, adaptive batch norm, the scorer of one candidate.

Here: how one candidate is scored. Not here: loops over candidates, processes, ray, disk. Imports core and prune.
"""
