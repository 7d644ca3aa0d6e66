"""Largest numbers in a job."""

from __future__ import annotations

MOST_EVALUATIONS = 10_000_000
MOST_SEED = 2**32 - 1  # the largest seed of NumPy's legacy generators, which Optuna's samplers use
MOST_THREADS = 1024  # torch starts any number of threads, even more than a machine can hold
MOST_WORKERS = 10_000
