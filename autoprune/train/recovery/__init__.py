"""The training of a pruned network until it is deployed: options, losses, the loop, and its state.

It knows no job and no run folder: `Recovering(network, teacher, options, batches).run(judge)`.
"""
