"""Optuna behind ask and tell. Only this folder imports optuna."""
