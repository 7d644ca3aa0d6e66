"""The tensor in a network's output that a fitness measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from autoprune.errors import DataError
from autoprune.measure.batch import Batch
from autoprune.measure.top_classes import TopClasses

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
