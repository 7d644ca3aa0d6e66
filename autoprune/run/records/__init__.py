"""What lies in a run folder: the journal, events, documents and tensors, and checks of all of them."""
