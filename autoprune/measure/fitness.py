"""Fitness functions: from a network and batches to numbers. A user's own has the same form.

A fitness is a function `(model, batches) -> float or dict of floats`, the model in eval mode and without gradients,
the batches `autoprune.measure.batch.Batch`es. A float is recorded under the name of the first objective that is no
cost, a dict under its own names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn
from torch.nn import functional

from autoprune.errors import DataError
from autoprune.measure.batch import Batch

Fitness = Callable[[nn.Module, Sequence[Batch]], float | Mapping[str, float]]


def classification(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """Accuracy, KL divergence and mean squared difference to the dense network, in one pass.

    `accuracy` is the share of examples whose largest logit is the target's; `kl` the mean over examples of
    sum p (log p - log q) in nats, p the dense network's class probabilities and q the pruned one's: smoother than
    accuracy on few images, and needs no labels. `mse` is the mean of the squared differences of all logits, the
    distortion of RD_PRUNE (Xu et al. 2023, https://arxiv.org/abs/2308.10438).
    """
    if not batches:
        raise DataError("classification needs at least one batch, got none")
    hits = divergence = squares = count = 0.0
    for batch in batches:
        if batch.target is None:
            raise DataError("classification needs targets: give select and report batches labels")
        if batch.dense is None:
            raise DataError("classification needs the dense network's outputs: see scorer.with_dense_outputs")
        logits = model(*batch.inputs)
        hits += float((logits.argmax(dim=1) == batch.target).sum())
        log_q, log_p = functional.log_softmax(logits, dim=1), functional.log_softmax(batch.dense, dim=1)
        divergence += float(functional.kl_div(log_q, log_p, reduction="sum", log_target=True))
        squares += float((logits - batch.dense).square().sum()) / logits.shape[1]
        count += len(logits)
    return {"accuracy": hits / count, "kl": divergence / count, "mse": squares / count}
