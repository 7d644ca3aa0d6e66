"""What can go: traces of a network, the axes of its tensors, and the units that follow from them."""
