"""The audit of a run: networks of one budget are measured, trained, and measured again.

It shows how far the values that a search compares networks by foretell which network is better after training.
"""
