"""Shared by searchers: the queue of proposals, goals within one budget, gains, bandits, and uniform rivals of plans."""
