"""The parts of benchmarks/searchers.py: problems, one search and its curve, rows on disk, the table, the picture.

Nothing here is imported by autoprune.
"""
