"""Searches for the best network within one budget."""
