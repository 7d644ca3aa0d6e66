"""The tensor in a network's output that a fitness measures, and the measures of a classifier's scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from autoprune.errors import DataError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.top_classes import TopClasses, top_class

NAMED = ("logits", "last_hidden_state")  # the main tensors of the outputs of transformers


def main_tensor(output: Any) -> Any:
    """The main tensor of an output: the attribute or key `logits` or `last_hidden_state`, as in outputs of
    transformers, or the only tensor of a tuple, list or mapping. Any other output is returned as it is.
    """
    for name in NAMED:
        named = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(named, torch.Tensor):
            return named
    parts = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(parts, tuple | list):
        tensors = [part for part in parts if part is not None]
        return tensors[0] if len(tensors) == 1 else output
    return output


def described(output: Any) -> str:
    if isinstance(output, torch.Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    inside = f" of {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    inside = f" of {', '.join(map(described, output))}" if isinstance(output, tuple | list) else inside
    return f"a {type(output).__name__}{inside}"


def dense_tensor(batch: Batch) -> torch.Tensor:
    if batch.dense is None:
        raise DataError(
            "expected batches with the dense network's outputs, which this measure compares with, got none. Fill them "
            "in with scorer.with_dense_outputs."
        )
    if isinstance(batch.dense, TopClasses):
        raise DataError(
            "expected batches with the dense network's whole outputs, got the most likely classes alone, from which "
            "only `kl` can be computed. Fill them in with scorer.with_dense_outputs for this fitness."
        )
    outputs: torch.Tensor = main_tensor(batch.dense)
    return outputs


def angles(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(...,) angles between the vectors along the last dimension, as shares of a half turn; exactly 0 for equal ones.

    Source:
        Kahan, How Futile are Mindless Assessments of Roundoff in Floating-Point Computation?, 2006, section 12.
    """
    one, other = functional.normalize(x.float(), dim=-1), functional.normalize(y.float(), dim=-1)
    return 2 / torch.pi * torch.atan2((one - other).norm(dim=-1), (one + other).norm(dim=-1))


def logits_of(output: Any) -> torch.Tensor:
    """The (b, classes) logits in a network's output. PluginError if there are none."""
    logits = main_tensor(output)
    if isinstance(logits, torch.Tensor) and logits.dim() == 2:
        return logits
    raise PluginError(
        f"classification expects a network that returns (b, classes) logits, got {described(output)}. Set fitness to "
        "autoprune.measure.fitness:reconstruction with `guide: mse`, or to a function of your own."
    )


def target_of(batch: Batch) -> torch.Tensor:
    """The targets of a batch. DataError if it has none."""
    if batch.target is None:
        raise DataError("classification needs targets: give select and report batches labels")
    return batch.target


def total(parts: Sequence[torch.Tensor]) -> float:
    """The sum in float64 of one number of each batch, which are fetched from their device together."""
    return sum(torch.stack(list(parts)).tolist(), 0.0)


def squared_error(output: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The sum over examples of the mean squared difference within each."""
    return (output - dense_tensor(batch)).square().flatten(1).mean(dim=1).sum()


def _hits(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return (logits.argmax(dim=1) == target_of(batch)).sum()


def _agreement(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    dense = batch.dense if isinstance(batch.dense, TopClasses) else dense_tensor(batch)
    return (logits.argmax(dim=1) == top_class(dense)).sum()


def _kl(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    if isinstance(batch.dense, TopClasses):
        return batch.dense.divergence(logits).sum()
    log_q, log_p = functional.log_softmax(logits, dim=1), functional.log_softmax(dense_tensor(batch), dim=1)
    return functional.kl_div(log_q, log_p, reduction="sum", log_target=True)


def _angular(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return angles(logits, dense_tensor(batch)).sum()


def _loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(logits, target_of(batch), reduction="sum")


# sums over the examples of a batch
MEASURES: dict[str, Callable[[torch.Tensor, Batch], torch.Tensor]] = {
    "accuracy": _hits,
    "kl": _kl,
    "mse": squared_error,
    "angular": _angular,
    "loss": _loss,
    "agreement": _agreement,
}
