"""What the devices of tensors can do: their precisions, their memory, and smaller batches where that does not suffice.

No other folder asks for the type of a device to decide on these. It imports nothing but errors.
"""
