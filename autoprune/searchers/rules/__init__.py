"""Rules without feedback: ladders, closed forms, greedy paths and knapsacks over importance."""
