"""Exact allocation: one level for each unit, least summed error within a budget, for all budgets at once.

A cost that is a sum of tables over few units each is minimised by eliminating the units one by one. Knows tables of
costs and errors, nothing of networks: numpy and `errors` alone, besides `terms`, which reads a problem's polynomial.
"""
