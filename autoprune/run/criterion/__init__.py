"""The search for a criterion: formulas, their evolution, the networks that judge them, the plug-in file."""
