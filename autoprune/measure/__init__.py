"""Turns a pruned network into numbers: batches, fitness, adaptive batch norm, the scorer of one candidate.

This folder scores one candidate. Loops over candidates, processes, ray and disk access are elsewhere. It imports core
and prune.
"""
