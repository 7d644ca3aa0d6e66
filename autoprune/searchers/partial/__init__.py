"""Searches that score networks on parts of the selection set first."""
