"""Published methods that prune decoders of transformers without training, written from their descriptions.

Networks have the modules of a Llama without biases. All but those of SliceGPT keep their shapes: what is removed has
zeros in the projection that reads it, which gives the same outputs as real removal, and costs are those of the smaller
shapes (decoder.costs). Each method is a function of a setting, and yields networks with the options that made them;
setting.best_within takes the best one on the selection set within each budget. Nothing here is imported by autoprune.
"""
