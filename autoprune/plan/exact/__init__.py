"""Exact allocation: one level for each unit, least summed damage within a budget, for all budgets at once.

A cost that is a sum of tables over few units each is minimised by eliminating the units one by one. Works on tables of
costs and damages and knows no networks: imports numpy and `errors` alone, besides `terms`, which reads a problem's
polynomial.
"""
