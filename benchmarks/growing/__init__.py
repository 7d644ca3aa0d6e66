"""How each part grows with the number of units: one file a part, each with a function that returns rows."""
