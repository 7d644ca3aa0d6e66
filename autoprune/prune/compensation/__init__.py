"""The pass over the networks of a front that fits every layer to the dense network's outputs."""
