"""What can be removed: traces of a network, the axes of its tensors, and the units that follow from them."""
