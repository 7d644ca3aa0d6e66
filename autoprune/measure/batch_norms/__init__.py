"""Policies that set the statistics of a pruned network's batch norms: one class each, behind one contract."""
