"""The evaluators: this process, worker processes or Ray actors, each behind one contract (core.contracts)."""
