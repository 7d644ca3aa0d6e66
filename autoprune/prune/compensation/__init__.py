"""Compensation: one pass through a network of the front that fits every layer to the dense network's outputs."""
