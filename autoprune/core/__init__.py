"""The nouns every room exchanges: frozen values, JSON both ways, picklable.

Here: units, levels, candidates, costs, objectives, evaluations, fronts. Not here: torch, disk, clock, randomness.
Imports numpy (and moocore for dominance and hypervolume); everybody may import this room.
"""
