"""From damages to levels within a budget: tables and models of damage, exact and greedy allocation, ladders.

Imports core alone (numpy, moocore), so that plans can be made without a searcher. Not here: asking and telling.
"""
