"""The bank that candidates are assembled from: kept positions and compensated weights for every count of every unit."""
