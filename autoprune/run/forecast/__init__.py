"""Forecast of a run: time and memory by stage, from one short pass and formulas, before anything long starts."""
