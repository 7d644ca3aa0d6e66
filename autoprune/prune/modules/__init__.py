"""Any nn.Module, without a word about units: what it keeps, copies of it, adapters, wrappers, batch norms."""
