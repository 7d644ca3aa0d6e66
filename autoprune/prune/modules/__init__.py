"""Tools for any nn.Module, independent of units: attributes, copies, adapters, wrappers, batch norms."""
