"""How the batch norms of pruned networks get their statistics: one class a policy behind one contract."""
