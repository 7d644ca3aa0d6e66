"""Checkpoints of transformers: networks and tokenizers that are read from folders.

Here: loading by the classes of transformers, and the checks that make their failures sentences. Not here: data,
measuring, exports. Imports errors alone; data, run and jobs may import this room. transformers is imported when a
function needs it. Nothing is downloaded unless `download` is set.
"""

from autoprune.pretrained.networks import causal_lm, classifier, encoder, named_inputs
from autoprune.pretrained.tokenizers import load_tokenizer

__all__ = ["causal_lm", "classifier", "encoder", "load_tokenizer", "named_inputs"]
