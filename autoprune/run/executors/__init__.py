"""Evaluators that score in this process, in worker processes or in Ray actors, behind one contract (core.contracts)."""
