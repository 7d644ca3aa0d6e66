"""The loss of a step: the passes of both networks, and what is compared of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import ConfigError, PluginError
from autoprune.measure.batch import Batch
from autoprune.prune.modules.borrowed import evaluating
from autoprune.train.recovery.blocks import Indices, block_names, block_outputs, with_features
from autoprune.train.recovery.features import FeatureSite, feature_site, recording
from autoprune.train.recovery.options import Recovery
from autoprune.train.recovery.terms import loss_of


@dataclass(eq=False)
class StepLoss:
    """Computes the loss of a batch. The dense network sees the same inputs, in eval mode and without gradients.

    Attributes:
        network: the network in training.
        run: calls it, with its adapters if there are any.
        teacher: the dense network; None if the loss does not compare with it.
        options: the options.
        kept: the positions of the dense network's tensors that the network keeps.
    """

    network: nn.Module
    run: Callable[..., Any]
    teacher: nn.Module | None
    options: Recovery
    kept: Indices
    _site: FeatureSite | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        compared = "features" if self.options.features else self.options.loss
        if self.options.taught and not callable(compared) and self.teacher is None:
            raise ConfigError(f"loss: {compared} compares with the dense network, got none. Pass it.")

    def __call__(self, batch: Batch) -> torch.Tensor:
        """The loss, a mean over the examples."""
        if self.options.loss == "mimic":
            return self._mimic(batch)
        if self.options.features:
            return self._with_features(batch)
        dense = self._taught(batch) if self.options.taught else None
        return loss_of(self.options, self.run(*batch.inputs), batch._replace(dense=dense))

    def _taught(self, batch: Batch) -> Any:
        """The dense network's output; None without a dense network."""
        if self.teacher is None:
            return None
        with _teaching(self.teacher):
            return self.teacher(*(x.clone() for x in batch.inputs))

    def _with_features(self, batch: Batch) -> torch.Tensor:
        """The loss with the differences of block outputs."""
        assert self.teacher is not None
        names = [name for name in block_names(self.teacher) if name in set(block_names(self.network))]
        with block_outputs(self.teacher, names) as theirs:
            dense = self._taught(batch)
        with block_outputs(self.network, names) as own:
            task = loss_of(self.options, self.run(*batch.inputs), batch._replace(dense=dense))
        return with_features(task, own, theirs, self.kept)

    def _mimic(self, batch: Batch) -> torch.Tensor:
        """The mean squared difference from the dense network's features.

        Source:
            Wang and Wu, Practical Network Acceleration with Tiny Sets, 2023, section 3: features before global
            pooling, there after the removal of blocks.
        """
        assert self.teacher is not None
        if self._site is None:
            self._site = feature_site(self.teacher, [x[:1] for x in batch.inputs])
        with recording(self.teacher, self._site) as dense:
            self._taught(batch)
        with recording(self.network, self._site) as own:
            self.run(*batch.inputs)
        if own.features is None or dense.features is None:
            raise PluginError(
                f"loss mimic: expected both networks to run the layer {self._site.layer!r}, which one of them does "
                "not. Take kl."
            )
        return functional.mse_loss(own.features.float(), self._kept(self._site, dense.features, own.features).float())

    def _kept(self, site: FeatureSite, dense: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """The dense network's features at the positions that the network keeps."""
        kept = self.kept.get(f"{site.layer}.weight", {}).get(1)
        if kept is not None and dense.shape != own.shape:
            dim = 1 if dense.dim() > 2 and dense.shape[1] != own.shape[1] else dense.dim() - 1
            dense = dense.index_select(dim, torch.as_tensor(kept, device=dense.device))
        if dense.shape != own.shape:
            raise PluginError(
                f"loss mimic: expected features of the dense network's shape, {tuple(dense.shape)}, before "
                f"{site.layer!r}, got {tuple(own.shape)}. Say which positions are kept (kept=...), or take kl."
            )
        return dense


@contextlib.contextmanager
def _teaching(teacher: nn.Module) -> Iterator[None]:
    with evaluating(teacher), torch.no_grad():
        yield
