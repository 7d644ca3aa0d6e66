"""The bank from which candidates are assembled: kept positions and compensated weights for any counts of the units."""
