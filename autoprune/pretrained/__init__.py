"""Checkpoints of transformers: networks and tokenizers that are read from folders, and networks written to them.

Here: loading by the classes of transformers, the checks that make their failures sentences, and the export format
`transformers`. Not here: batches, measuring. Imports prune's modules, passes and surgery, and errors; api, data, run
and jobs may import this room. transformers is imported when a function needs it. Nothing is downloaded unless
`download` is set.
"""

from autoprune.pretrained.biases import add_biases
from autoprune.pretrained.networks import causal_lm, classifier, encoder, named_inputs
from autoprune.pretrained.tokenizers import load_tokenizer

__all__ = ["add_biases", "causal_lm", "classifier", "encoder", "load_tokenizer", "named_inputs"]
