"""The parts of benchmarks/zoo.py: the models, what one process measures of one model, the table.

`ours` and `rival` run as `python -m zoo.ours MODEL` in a process of their own; nothing here is imported by autoprune.
"""
