"""A job with everything resolved, and the session it becomes: model, data, structure, bank, problem, scorer."""
