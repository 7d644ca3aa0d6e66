"""The quick score: batch norms take the statistics of the very batch they see, so that a candidate needs one pass.

Two-pass scores first re-estimate statistics on calibration images. Statistics of the batch itself save that pass, but a
batch is a small sample, and what it adds to a score differs from candidate to candidate. The selection batches are the
same for every candidate, so what each of them does to the dense network's statistics is recorded once and taken off
(control variates, as in `Anchored`): with d the dense network's own mean and variance, c those of this batch in the
dense network and p those of this batch in the pruned one, mean = p + (d - c) s and variance = p * d / c, where s^2 is
the variance of p over that of c (the formula of `NormStatistics.anchored`, factored so that all that depends on the
dense network alone is computed once).

Statistics of the batch itself are what a network in train mode uses (Ioffe and Szegedy 2015,
https://arxiv.org/abs/1502.03167); as a score of pruned networks without a second pass, and anchored, we know them from
nowhere else. Only guides use them: what is exported has statistics of its own.
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

# positions a channel's statistics are taken from; twice as many ranked ResNet-20s on CIFAR-10 alike
SAMPLES = 1 << 15

Seen = list[NormStatistics]  # of one batch norm, a call each
Corrections = Mapping[Hashable, Sequence[tuple[torch.Tensor, torch.Tensor]]]  # (error, ratio) by batch, a call each


class OfBatch(BatchNorms):
    """Scores with anchored statistics of the very batch at hand; networks are deployed with anchored two-pass ones.

    Scores depend on how many examples are in a batch, which is therefore not tuned.
    """

    calibrates = False
    tunes_batch = False

    @cached_property
    def anchor(self) -> BatchAnchor:
        """What corrects the statistics of the known batches."""
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
    """The dense network's own statistics, and those of each known batch, by name of the batch norm."""

    own: Mapping[str, NormStatistics]
    seen: Mapping[Hashable, Mapping[str, Seen]]

    @staticmethod
    def of(dense: nn.Module, batches: Mapping[Hashable, tuple[torch.Tensor, ...]]) -> BatchAnchor:
        """Runs the dense network once over the batches, its batch norms with their own statistics."""
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
        """Inside, batch norms of a pruned network in eval mode use anchored statistics of the batch they see.

        Those named `intact`, before which nothing was pruned, keep their own: that is what anchoring would give them.
        `indices` says which channels stay. PluginError for a batch that is not known.
        """
        norms = {name: norm for name, norm in tracked_norms(network).items() if name not in intact}
        for name, norm in norms.items():
            corrections = self._corrections(name, kept_channels(indices, name), norm.eps)
            norm.forward = _anchored(norm, corrections, followed)  # type: ignore[method-assign, assignment]  # of this copy alone
        try:
            yield
        finally:
            for norm in norms.values():
                del norm.forward

    def _corrections(self, name: str, kept: np.ndarray | None, eps: float) -> Corrections:
        """For each batch and call: what to add to the mean, in standard deviations, and what to multiply the variance
        with, (c,) each."""
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
    """Mean and unbiased variance over all dimensions of (b, c, ...) but the second, in float32.

    Of the first examples that have SAMPLES positions together, two at least; all where there are fewer.
    """
    x = x[: max(2, SAMPLES * x.shape[0] * x.shape[1] // x.numel())]
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
                "scores with the statistics of a batch need to know which it is. Set search.batch_norms to anchored."
            )
        made = corrections[followed.current]
        error, ratio = made[calls[followed.current] % len(made)]  # a norm that is called twice has two
        calls[followed.current] += 1
        moments = batch_moments(x)
        mean = moments.mean + error * (moments.variance + norm.eps).sqrt()
        variance = moments.variance * ratio
        return functional.batch_norm(x, mean, variance, norm.weight, norm.bias, eps=norm.eps)

    return forward
