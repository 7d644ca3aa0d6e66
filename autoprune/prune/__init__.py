"""Changes the model: structure, order of positions, compensated weights, surgery, and the proof that it is right.

Here: what the network is made of and how a smaller one is built from it. Not here: data sets, accuracy, reasons for a
choice. Imports core and torch. Nothing here changes a caller's model: every change is made on a copy.
"""
