"""Optuna behind ask and tell. The only folder that imports optuna, with searchers.optuna.study."""
