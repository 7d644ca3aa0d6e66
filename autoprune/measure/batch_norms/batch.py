"""The quick score: batch norms normalize with the statistics of the current batch, so a candidate needs one pass.

Two-pass scores first re-estimate statistics on calibration examples. Statistics of the current batch save that pass,
but a batch is a small sample, and its sampling error differs from candidate to candidate. The selection batches are the
same for every candidate, so each batch's effect on the dense network's statistics is recorded once and subtracted
(a control variate, as in `Anchored`): with d the dense network's own mean and variance, c the statistics of this batch
in the dense network and p its statistics in the pruned network, mean = p + (d - c) s and variance = p * d / c, where
s^2 is the variance of p over that of c (the formula of `NormStatistics.anchored`, factored so that all terms of the
dense network alone are computed once).

A network in train mode also normalizes with the statistics of the batch (Ioffe and Szegedy 2015,
https://arxiv.org/abs/1502.03167); we know of no other work that scores pruned networks this way, without a second pass
and anchored. Only guides use these statistics: exported networks have two-pass ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.errors import PluginError
from autoprune.measure.batch_norms.contract import BatchNorms, WrittenStatistics
from autoprune.measure.batch_norms.two_pass import Anchored
from autoprune.measure.following import Followed
from autoprune.prune.modules.batch_norms import NormStatistics, kept_channels, running_statistics, tracked_norms
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.passes.containers import copied
from autoprune.prune.surgery.surgery import Indices

# values per channel that statistics are computed from; twice as many ranked ResNet-20s on CIFAR-10 in the same order
VALUES_PER_CHANNEL = 1 << 15

Seen = list[NormStatistics]  # the statistics of one batch norm's inputs, one entry per call
Corrections = Mapping[Hashable, Sequence[tuple[torch.Tensor, torch.Tensor]]]  # batch -> (error, ratio) of each call


class OfBatch(BatchNorms):
    """Scores with anchored statistics of the current batch; deployed networks get anchored two-pass statistics.

    Scores depend on the batch size, which is therefore not tuned.
    """

    calibrates = False
    tunes_batch = False

    @cached_property
    def anchor(self) -> BatchAnchor:
        """The corrections of the selection batches' statistics."""
        return BatchAnchor.of(self.dense, self.select)

    @cached_property
    def _followed(self) -> Followed:
        return Followed(self.select)

    def prepare(self) -> None:
        _ = self.anchor

    @contextlib.contextmanager
    def settled(self, network: nn.Module, indices: Indices, intact: Collection[str] = ()) -> Iterator[None]:
        with self._followed.following(network), self.anchor.applied(network, indices, self._followed, intact):
            yield

    @classmethod
    def deployed(cls) -> type[WrittenStatistics]:
        return Anchored


@dataclass(frozen=True)
class BatchAnchor:
    """The dense network's own statistics (`own`) and its statistics on each batch (`seen`), by batch norm name."""

    own: Mapping[str, NormStatistics]
    seen: Mapping[Hashable, Mapping[str, Seen]]

    @staticmethod
    def of(dense: nn.Module, batches: Mapping[Hashable, tuple[torch.Tensor, ...]]) -> BatchAnchor:
        """Runs the dense network once over the batches in eval mode and records the inputs of its batch norms."""
        seen: dict[Hashable, dict[str, Seen]] = {}
        hooks = []
        for name, norm in tracked_norms(dense).items():
            hooks.append(norm.register_forward_pre_hook(_recorder(seen, name)))
        try:
            with evaluating(dense), torch.no_grad():
                for key, inputs in batches.items():
                    seen[key] = {}
                    dense(*copied(inputs))
        finally:
            for hook in hooks:
                hook.remove()
        return BatchAnchor(running_statistics(dense), seen)

    @contextlib.contextmanager
    def applied(
        self, network: nn.Module, indices: Indices, followed: Followed, intact: Collection[str] = ()
    ) -> Iterator[None]:
        """Makes the batch norms of a pruned network in eval mode use anchored statistics of the current batch.

        Args:
            network: the pruned network; the change is undone when the context ends.
            indices: the channels of each tensor of the dense network that stay.
            followed: tells which batch the network is running on.
            intact: names of the batch norms before which nothing was pruned. They keep their own statistics, which
                anchoring would give them too.

        Raises:
            PluginError: the network runs on a batch that was not recorded.
        """
        norms = {name: norm for name, norm in tracked_norms(network).items() if name not in intact}
        for name, norm in norms.items():
            corrections = self._corrections(name, kept_channels(indices, name), norm.eps)
            norm.forward = _anchored(norm, corrections, followed)  # type: ignore[method-assign, assignment]  # a copy
        try:
            yield
        finally:
            for norm in norms.values():
                del norm.forward

    def _corrections(self, name: str, kept: np.ndarray | None, eps: float) -> Corrections:
        """The correction of each batch and call: an offset of the mean, in standard deviations, and a factor of the
        variance, (c,) each."""
        own = self.own[name].take(kept)
        found = {}
        for key, norms in self.seen.items():
            dense = [moments.take(kept) for moments in norms.get(name, ())]
            spreads = [d.variance + eps for d in dense]
            found[key] = [
                ((own.mean - d.mean) / spread.sqrt(), (own.variance + eps) / spread)
                for d, spread in zip(dense, spreads, strict=True)
            ]
        return found


def batch_moments(x: torch.Tensor) -> NormStatistics:
    """The mean and unbiased variance over all dimensions of (b, c, ...) except the second, in float32.

    They are computed from the first examples, at least two, as far as VALUES_PER_CHANNEL values of a channel go.
    """
    x = x[: max(2, VALUES_PER_CHANNEL * x.shape[0] * x.shape[1] // x.numel())]
    if x.device.type in ("cpu", "cuda"):  # one pass over the memory
        mean, variance = x.new_zeros(x.shape[1], dtype=torch.float32), x.new_ones(x.shape[1], dtype=torch.float32)
        torch.batch_norm_update_stats(x, mean, variance, 1.0)
        return NormStatistics(mean, variance)
    variance, mean = torch.var_mean(x.float(), [0, *range(2, x.dim())])
    return NormStatistics(mean, variance)


def _recorder(
    seen: dict[Hashable, dict[str, Seen]], name: str
) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def record(norm: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        latest = seen[next(reversed(seen))]
        latest.setdefault(name, []).append(batch_moments(args[0]))

    return record


def _anchored(norm: _BatchNorm, corrections: Corrections, followed: Followed) -> Callable[[torch.Tensor], torch.Tensor]:
    calls = dict.fromkeys(corrections, 0)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if followed.current not in corrections:
            raise PluginError(
                "expected the fitness to pass the inputs of its batches on to the model as they are, got others: "
                "scores with the statistics of a batch must identify the batch. Set search.batch_norms to anchored."
            )
        made = corrections[followed.current]
        error, ratio = made[calls[followed.current] % len(made)]  # a norm that is called twice has two corrections
        calls[followed.current] += 1
        moments = batch_moments(x)
        mean = moments.mean + error * (moments.variance + norm.eps).sqrt()
        variance = moments.variance * ratio
        return functional.batch_norm(x, mean, variance, norm.weight, norm.bias, eps=norm.eps)

    return forward
