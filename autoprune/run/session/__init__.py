"""Jobs, whose settings are all resolved, and the sessions they become: model, data, structure, bank and scorer."""
