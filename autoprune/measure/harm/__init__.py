"""Whom pruning harms: recall by class, agreement with the dense network, losses of groups, corrupted inputs.

This folder compares one network with the dense one on labelled or unlabelled batches. It writes no files; run.harm
measures the members of a run with it.
"""
