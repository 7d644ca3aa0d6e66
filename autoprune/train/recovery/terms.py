"""The losses of recovery, each the mean over the examples or the predicted tokens of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from autoprune.errors import DataError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.language import IGNORED
from autoprune.measure.outputs import described, main_tensor
from autoprune.prune.passes.containers import main_output
from autoprune.train.finetune import checked_loss
from autoprune.train.recovery.options import Recovery


def loss_of(options: Recovery, output: Any, batch: Batch) -> torch.Tensor:
    """The loss of a network's output in train mode; `batch.dense` has the dense network's.

    Raises:
        DataError: the loss needs targets, and there are none.
        PluginError: the loss cannot be computed from this output.
    """
    if callable(options.loss):
        return checked_loss("recover.loss", options.loss(output, batch))
    share = {"cross_entropy": 0.0, "kl": 1.0}.get(options.loss, options.distill)
    rows, target, chosen = _rows(options.loss, output, batch)
    parts = []
    if share < 1:
        if target is None:
            raise DataError(f"the loss {options.loss} needs labels, the examples have none. Take kl or mimic.")
        parts.append((1 - share) * cross_entropy(rows, target, options.label_smoothing))
    if share > 0:
        parts.append(share * divergence(rows, _dense_rows(batch, chosen, rows), options.temperature))
    return torch.stack(parts).sum()


def cross_entropy(rows: torch.Tensor, target: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """The cross entropy of (n, classes, ...) logits with (n, ...) classes, with label smoothing.

    Source:
        Szegedy and others, Rethinking the Inception Architecture for Computer Vision, 2016, section 7.
    """
    return functional.cross_entropy(rows, target, label_smoothing=smoothing, ignore_index=IGNORED)


def divergence(rows: torch.Tensor, dense: torch.Tensor, temperature: float) -> torch.Tensor:
    """The KL of (n, classes, ...) logits to the dense network's, both softened, times the square of the temperature.

    Source:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, section 2.
    """
    log_q, log_p = (functional.log_softmax(logits / temperature, dim=1) for logits in (rows, dense))
    positions = max(1, rows.numel() // max(1, rows.shape[1]))
    total = functional.kl_div(log_q, log_p, reduction="sum", log_target=True)
    return total / positions * temperature**2


def _main(output: Any) -> Any:
    """The tensor of logits: the one of that name in outputs of transformers, else the first tensor."""
    named = main_tensor(output)
    return named if isinstance(named, torch.Tensor) else main_output(output)


def _rows(name: str, output: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Logits with the classes in dimension 1, their targets, and which tokens they are of; None for all."""
    logits = _main(output)
    if not isinstance(logits, torch.Tensor) or logits.dim() < 2 or not logits.is_floating_point():
        raise PluginError(
            f"recover.loss: {name} expects the first tensor that a network returns to be logits, (b, classes, ...) or "
            f"(b, tokens, vocabulary), got {described(output)}. Take mimic, or a function of (output, batch)."
        )
    logits, target = logits.float(), batch.target
    if logits.dim() != 3:
        return logits, target, None
    if target is None:
        return logits.flatten(0, 1), None, None
    chosen = target[:, 1:] != IGNORED
    return logits[:, :-1][chosen], target[:, 1:][chosen], chosen


def _dense_rows(batch: Batch, chosen: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    """The dense network's logits for the same examples or tokens."""
    dense: torch.Tensor = _main(batch.dense).float()
    if dense.dim() == 3:
        dense = dense.flatten(0, 1) if chosen is None else dense[:, :-1][chosen]
    if dense.shape != rows.shape:
        raise PluginError(
            f"recover.loss: expected logits of the dense network's shape, {tuple(dense.shape)}, got "
            f"{tuple(rows.shape)}. Take a function of (output, batch)."
        )
    return dense
