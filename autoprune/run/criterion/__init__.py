"""The search for a criterion: formulas, their evolution, their scores by networks, and the plug-in file."""
