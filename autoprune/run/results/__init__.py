"""What a run leaves: the members of its front, exports, other budgets, Optuna studies."""
