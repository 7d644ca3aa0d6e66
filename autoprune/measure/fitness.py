"""Fitness functions, which measure a network on batches. Users can pass their own.

A fitness is a function `(model, batches) -> float or dict of floats`, called with the model in eval mode, without
gradients, and with a list of `autoprune.measure.batch.Batch`. A float is recorded under the name of the first objective
that is not a cost, a dict under its own names. The decorator `averaging` declares that all values are means over
examples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import DataError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.harm.fitness import BY_GROUP, FAIR, fair_classification
from autoprune.measure.language import IGNORED, LANGUAGE_MEASURES, language_model
from autoprune.measure.outputs import (
    MEASURES,
    dense_tensor,
    described,
    logits_of,
    main_tensor,
    squared_error,
    total,
)
from autoprune.measure.top_classes import TopClasses, kept_classes

Fitness = Callable[[nn.Module, Sequence[Batch]], float | Mapping[str, float]]
AnyFitness = TypeVar("AnyFitness", bound=Callable[..., Any])


@runtime_checkable
class Averaging(Protocol):
    """A fitness that declares whether its values are means over examples, as functions marked by `averaging` do."""

    averages: bool


def averaging(fitness: AnyFitness) -> AnyFitness:
    """Marks a fitness all of whose values are means over examples, each with the same weight.

    A search can then extend a measurement by further examples without repeating it, and compare candidates part by
    part.
    """
    fitness.averages = True  # type: ignore[attr-defined]  # see Averaging
    return fitness


def averages(fitness: Fitness) -> bool:
    """Whether a fitness, or the function that a partial application calls, is marked by `averaging`."""
    if isinstance(fitness, functools.partial):
        return averages(fitness.func)
    return isinstance(fitness, Averaging) and bool(fitness.averages)


def is_builtin(fitness: Fitness) -> bool:
    """Whether a fitness, or the function that a partial application calls, comes with autoprune and thus is pure."""
    return bool(_reported(fitness))


@averaging
def classification(
    model: nn.Module, batches: Sequence[Batch], report: Sequence[str] = ("accuracy", "kl")
) -> dict[str, float]:
    """Measures a network that returns (b, classes) logits, as means over all examples, in one pass.

    Args:
        model: the network.
        batches: the examples.
        report: names of the measures to return. `accuracy` is the share of examples whose largest logit is the
            target's. `kl` is sum p (log p - log q) in nats, with p the dense network's class probabilities and q the
            pruned network's; it needs no labels and is smoother than accuracy on few examples. Of more than 8,192
            classes the dense network's 1,024 most likely ones and all others together are compared, which gives a lower
            bound (top_classes.py). `mse` is the mean
            squared difference of the logits from the dense network's, and `angular` the angle between both, as a share
            of a half turn. `loss` is the cross entropy with the targets, in nats. `agreement` is the share of examples
            for which both networks predict the same class; it needs no labels.

    Returns:
        The measures by name.

    Raises:
        PluginError: a name in `report` is unknown, or the network does not return logits.
        DataError: there is no batch, or a batch lacks targets or dense outputs that a measure needs.
    """
    unknown = [name for name in report if name not in MEASURES]
    if unknown:
        raise PluginError(f"classification can report {', '.join(MEASURES)}; got {', '.join(map(repr, unknown))}")
    if not batches:
        raise DataError("classification needs at least one batch, got none")
    sums: dict[str, list[torch.Tensor]] = {name: [] for name in report}
    count = 0
    for batch in batches:
        logits = logits_of(model(*batch.inputs))
        for name in report:
            sums[name].append(MEASURES[name](logits, batch))
        count += len(logits)
    return {name: total(parts) / count for name, parts in sums.items()}


@averaging
def reconstruction(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """Measures `mse`, the mean squared difference from the dense network's output, for networks that return a tensor.

    Every example has the same weight, whatever the shape of its output. No labels are needed.

    Raises:
        PluginError: the network does not return a tensor.
        DataError: there is no batch.
    """
    if not batches:
        raise DataError("reconstruction needs at least one batch, got none")
    sums, count = [], 0
    for batch in batches:
        output = main_tensor(model(*batch.inputs))
        if not isinstance(output, torch.Tensor):
            raise PluginError(f"reconstruction expects a network that returns a tensor, got {described(output)}")
        sums.append(squared_error(output, batch))
        count += len(output)
    return {"mse": total(sums) / count}


@averaging
def embedding(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """Measures how far an encoder's embeddings are from the dense network's, as means over all examples.

    An embedding is the mean of the outputs over the tokens whose target is not -100; without targets, over all tokens.
    Outputs of shape (b, width) are embeddings already.

    Returns:
        `cosine`, the cosine of the angle between both embeddings of an example, and `distance`, 1 minus that.

    Raises:
        PluginError: the network returns neither (b, tokens, width) nor (b, width).
        DataError: there is no batch.
    """
    if not batches:
        raise DataError("embedding needs at least one batch, got none")
    sums, count = [], 0
    for batch in batches:
        pooled, dense = (_pooled(output, batch) for output in (model(*batch.inputs), dense_tensor(batch)))
        sums.append(functional.cosine_similarity(pooled, dense, dim=1).sum())
        count += len(pooled)
    cosine = total(sums) / count
    return {"cosine": cosine, "distance": 1 - cosine}


def _pooled(output: Any, batch: Batch) -> torch.Tensor:
    """(b, width) embeddings."""
    tokens = main_tensor(output)
    if not isinstance(tokens, torch.Tensor) or tokens.dim() not in (2, 3):
        raise PluginError(f"embedding expects a network that returns (b, tokens, width), got {described(output)}")
    if tokens.dim() == 2:
        return tokens.float()
    used = torch.ones(tokens.shape[:2]) if batch.target is None else (batch.target != IGNORED).float()
    weights = used.to(tokens.device)[..., None]
    return (tokens.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


def reporting(fitness: Fitness, guide: str | None) -> Fitness:
    """Returns a fitness that also reports the guide, if `fitness` is built in, without options, and can measure it."""
    own = _reported(fitness)
    if isinstance(fitness, functools.partial) or guide in own or guide not in _measures(fitness):
        return fitness
    return functools.partial(cast(Callable[..., Any], fitness), report=(*own, guide))


def is_classification(fitness: Fitness) -> bool:
    """Whether a fitness is a built-in one of networks that return scores of classes."""
    return _called(fitness) in (classification, fair_classification)


def share_names(fitness: Fitness) -> tuple[str, ...]:
    """The names of values that are means over examples of values from 0 to 1, for which Wilson's interval holds."""
    known = ("accuracy", *(("agreement", "corrupted_accuracy") if is_classification(fitness) else ()))
    return known if averages(fitness) or is_classification(fitness) else ()


def interval_names(fitness: Fitness) -> tuple[str, ...]:
    """The names of values whose confidence intervals a fitness can compute, from single sequences."""
    perplexity = _called(fitness) is language_model and "perplexity" in (reported_names(fitness, None) or ())
    return ("perplexity",) if perplexity else ()


def with_interval(fitness: Fitness) -> Fitness:
    """Returns a fitness that also reports the ends of the intervals of `interval_names`, named ..._low and ..._high."""
    called = cast(Callable[..., Any], fitness)
    return functools.partial(called, interval=True) if interval_names(fitness) else fitness


def default_guide(fitness: Fitness) -> str | None:
    """The guide of a search with this fitness unless another one is chosen: KL if it is built in and reports it."""
    return "kl" if "kl" in (reported_names(fitness, None) or ()) else None


def _called(fitness: Fitness) -> Fitness:
    return fitness.func if isinstance(fitness, functools.partial) else fitness


def _reported(fitness: Fitness) -> tuple[str, ...]:
    """The names that a built-in fitness reports without options; none for a user's function."""
    return next((names for known, names in REPORTED if known is _called(fitness)), ())


def _measures(fitness: Fitness) -> Collection[str]:
    """The names that a built-in fitness can report if it is asked to."""
    return next((names for known, names in ASKED if known is fitness), ())


def reported_names(fitness: Fitness, guide: str | None) -> tuple[str, ...] | None:
    """The names that a built-in fitness reports, with those that a guide adds; None for a user's function."""
    if not is_builtin(fitness):
        return None
    options = fitness.keywords if isinstance(fitness, functools.partial) else {}
    own = options.get("report", _reported(fitness))
    also = (guide,) if not options and guide in _measures(fitness) else ()
    return tuple(dict.fromkeys((*own, *also, *(("layer",) if guide == "layer" else ()))))


def kept_for(fitness: Fitness) -> Callable[[Any], Any]:
    """What is kept of the dense network's outputs for a fitness: for the KL of many classes TopClasses suffice."""
    names = reported_names(fitness, None) or ()
    whole = bool({"mse", "angular", "group_gap"}.intersection(names))
    if _called(fitness) is language_model:
        return main_tensor if whole else lambda output: kept_classes(main_tensor(output))
    if not is_classification(fitness) or whole:
        return lambda output: output

    def kept(output: Any) -> Any:
        classes = kept_classes(main_tensor(output))
        return classes if isinstance(classes, TopClasses) else output

    return kept


# the built-in fitnesses, and the names that they report without options
REPORTED: tuple[tuple[Fitness, tuple[str, ...]], ...] = (
    (classification, ("accuracy", "kl")),
    (reconstruction, ("mse",)),
    (language_model, ("perplexity", "kl")),
    (embedding, ("cosine", "distance")),
    (fair_classification, FAIR),
)

# the names that a built-in fitness can also report
ASKED: tuple[tuple[Fitness, Collection[str]], ...] = (
    (classification, MEASURES),
    (language_model, LANGUAGE_MEASURES),
    (fair_classification, (*MEASURES, *BY_GROUP)),
)
