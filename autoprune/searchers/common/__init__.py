"""What searchers share: the queue of proposals, repair of budgets, goals, gains, bandits and rivals of plans."""
