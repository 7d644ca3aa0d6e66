"""The contract of a criterion: its inputs, the statistics that it may request, and how its scores are used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args, runtime_checkable

import torch

from autoprune.errors import PluginError

PRODUCERS = 3  # queries, keys and values, for each consumer of head dimensions


@dataclass(frozen=True)
class UnitWeights:
    """A unit's weights by position, as (n, k) matrices with one row per position.

    Attributes:
        producers: the weights that produce the positions, one matrix for each tensor.
        consumers: the weights that contract the positions.
        scales: the weights of batch norms over the positions.
    """

    producers: tuple[torch.Tensor, ...]
    consumers: tuple[torch.Tensor, ...]
    scales: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class ConsumerStatistics:
    """A consumer of the unit with float64 statistics of its inputs; for a grouped consumer, one of its groups.

    If the moments are those of channels, o includes kernel positions, and k is the number of inputs.

    Attributes:
        weight: (o, k), o outputs and k columns.
        gram: (k, k) second moments of the inputs, about their mean if `centred`, else about zero.
        columns: (n, m) the columns of each of the unit's n positions.
        mean: (k,) means of the inputs, if known.
        centred: whether `gram` is about the mean.
        energy: the energy of the layer's whole dense output, if this is only one of its groups.
        ridge: the ridge of regressions on the inputs, a share of the mean diagonal of `gram`; None: the usual one.
    """

    weight: torch.Tensor
    gram: torch.Tensor
    columns: torch.Tensor
    mean: torch.Tensor | None = None
    centred: bool = False
    energy: float | None = None
    ridge: float | None = None

    @property
    def square(self) -> torch.Tensor:
        """(k,) mean squares of the inputs."""
        diagonal = self.gram.diagonal()
        return diagonal if self.mean is None or not self.centred else diagonal + self.mean.square()

    @property
    def variance(self) -> torch.Tensor:
        """(k,) variances of the inputs, never below zero; mean squares if the mean is unknown."""
        diagonal = self.gram.diagonal()
        spread = diagonal if self.mean is None or self.centred else diagonal - self.mean.square()
        return spread.clamp(min=0.0)

    def by_position(self, columns: torch.Tensor) -> torch.Tensor:
        """(n,) sums over each position's columns of (k,) values."""
        return columns[self.columns].sum(dim=1)


@dataclass(frozen=True)
class RoutedStatistics:
    """What the router and n experts did on the calibration examples, float64; 0 for an expert that got no row.

    Attributes:
        rows: (n,) the number of rows, such as tokens, that each expert got.
        weight: (n,) the sum of the router's weights over these.
        salience: (n,) the mean of the router's weight times the norm of the expert's output.
        deviation: (n, d) the standard deviations of the d outputs of each expert.
    """

    rows: torch.Tensor
    weight: torch.Tensor
    salience: torch.Tensor
    deviation: torch.Tensor


@dataclass(frozen=True)
class UnitStatistics:
    """Statistics of a unit's consumers, and of the loss if they were requested.

    The loss is the cross entropy with classes that the dense network itself gives.

    Attributes:
        consumers: the statistics of each consumer or group; empty if none were collected.
        gradients: (b, n), for each batch the sum of weight x gradient over all producer weights of a position.
        sample_gradients: (s, n), the same sum for each of s single examples.
        curvature: (n,) the trace of the loss' Hessian over all producer weights of a position.
        produced: (p, n), for head dimensions: the share of each position in the energy of what each of p slices of the
            producers puts out, such as queries, keys and values.
        routed: for experts, what the router gave them and what they made of it.
    """

    consumers: tuple[ConsumerStatistics, ...]
    gradients: torch.Tensor | None = None
    sample_gradients: torch.Tensor | None = None
    curvature: torch.Tensor | None = None
    produced: torch.Tensor | None = None
    routed: RoutedStatistics | None = None


Criterion = Callable[[UnitWeights, UnitStatistics], torch.Tensor]
Need = Literal["moments", "gradients", "sample_gradients", "curvature", "routing"]
Function = TypeVar("Function", bound=Callable[..., object])


@runtime_checkable
class Declaring(Protocol):
    """A criterion that declares the statistics it needs; `needs` turns a function into one."""

    needs: frozenset[Need]


def needs(*names: Need) -> Callable[[Function], Function]:
    """Declares the statistics that a criterion needs besides weights.

    >>> @autoprune.needs("gradients")
    ... def mine(weights, statistics):
    ...     return statistics.gradients.abs().mean(dim=0)

    Args:
        *names: "moments" for the second moments of consumers; a unit without them is ordered by l2 instead, which is
            noted. "routing" for the field `routed` of experts, which takes one more pass. The other names are fields of
            UnitStatistics, which take backward passes. They are collected only if they are declared.

    Returns:
        A decorator for the criterion.

    Raises:
        PluginError: a name is unknown.
    """
    unknown = set(names) - set(get_args(Need))
    if unknown:
        raise PluginError(f"expected some of {', '.join(get_args(Need))}, got {', '.join(sorted(unknown))}")

    def declare(criterion: Function) -> Function:
        criterion.needs = frozenset(names)  # type: ignore[attr-defined]  # read back by needs_of
        return criterion

    return declare


def needs_of(criterion: Callable[..., object]) -> frozenset[Need]:
    """The needs that a criterion declared, also through partial applications; none by default."""
    while isinstance(criterion, functools.partial):
        criterion = criterion.func
    return criterion.needs if isinstance(criterion, Declaring) else frozenset()


def collected(statistics: torch.Tensor | None, need: Need) -> torch.Tensor:
    """Returns statistics that a criterion needs.

    Raises:
        PluginError: the statistics were not collected.
    """
    if statistics is None:
        raise PluginError(f"expected statistics with {need}, got none: declare them with @needs({need!r})")
    return statistics


def order_positions(criterion: Criterion, weights: UnitWeights, statistics: UnitStatistics, unit: str) -> torch.Tensor:
    """Orders the positions of a unit by a criterion.

    Args:
        criterion: gives the scores.
        weights: the unit's weights.
        statistics: the unit's statistics.
        unit: the unit's name, for messages.

    Returns:
        (n,) positions, those that stay longest first; of equal scores, the lower position stays longer.

    Raises:
        PluginError: the scores are not n finite numbers.
    """
    count = weights.producers[0].shape[0]
    name = getattr(criterion, "__name__", criterion)
    prefix = f"criterion {name!r} on unit {unit!r}"
    try:
        result = criterion(weights, statistics)
    except PluginError as error:
        raise PluginError(f"{prefix}: {error}") from error
    where = f"{prefix}: expected ({count},) finite scores"
    try:
        scores = torch.as_tensor(result).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise PluginError(f"{where}, got {type(result).__name__}: {error}") from error
    if scores.shape != (count,) or scores.is_complex() or not torch.isfinite(scores).all():
        raise PluginError(
            f"{where}, got shape {tuple(scores.shape)} of {scores.dtype} with "
            f"{int((~torch.isfinite(scores)).sum())} not finite"
        )
    return torch.argsort(scores, descending=True, stable=True)
