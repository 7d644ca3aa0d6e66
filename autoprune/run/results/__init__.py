"""The results of a run: members of its front, exports, other budgets, Optuna studies."""
