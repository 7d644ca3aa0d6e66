"""The nouns that every room exchanges: frozen, picklable values with JSON both ways.

Here: units, levels, candidates, costs, objectives, evaluations, fronts; besides, options and a cache for all rooms.
Not here: torch, disk, clock, randomness. Imports numpy (moocore for dominance and hypervolume). Any room imports it.
"""
