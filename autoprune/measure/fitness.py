"""Fitness functions, which measure a network on batches. Users can pass their own.

A fitness is a function `(model, batches) -> float or dict of floats`, called with the model in eval mode, without
gradients, and with a list of `autoprune.measure.batch.Batch`. A float is recorded under the name of the first objective
that is not a cost, a dict under its own names. The decorator `averaging` declares that all values are means over
examples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import DataError, PluginError
from autoprune.measure.batch import Batch
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
    """Whether a fitness, or the function that a partial application calls, is of this module and thus pure."""
    called = fitness.func if isinstance(fitness, functools.partial) else fitness
    return called is classification or called is reconstruction


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
            squared difference of the logits from the dense network's. `loss` is the cross entropy with the targets, in
            nats.

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
    sums = dict.fromkeys(report, 0.0)
    count = 0
    for batch in batches:
        logits = _logits(model(*batch.inputs))
        for name in report:
            sums[name] += float(MEASURES[name](logits, batch))
        count += len(logits)
    return {name: total / count for name, total in sums.items()}


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
    total, count = 0.0, 0
    for batch in batches:
        output = _tensor_in(model(*batch.inputs))
        if not isinstance(output, torch.Tensor):
            raise PluginError(f"reconstruction expects a network that returns a tensor, got {_described(output)}")
        total += float(_mse(output, batch))
        count += len(output)
    return {"mse": total / count}


def reporting(fitness: Fitness, guide: str | None) -> Fitness:
    """Returns a fitness that also reports the guide, if `fitness` is plain `classification` and can measure it."""
    if fitness is not classification or guide not in MEASURES or guide in ("accuracy", "kl"):
        return fitness
    return functools.partial(classification, report=("accuracy", "kl", guide))


def reported_names(fitness: Fitness, guide: str | None) -> tuple[str, ...] | None:
    """The names that a built-in fitness reports, with those that a guide adds; None for a user's function."""
    options: dict[str, Any] = {}
    if isinstance(fitness, functools.partial):
        options, fitness = fitness.keywords, fitness.func
    if fitness is classification:
        own = options.get("report", ("accuracy", "kl"))
        also = (guide,) if guide in MEASURES and not options else ()
    elif fitness is reconstruction:
        own, also = ("mse",), ()
    else:
        return None
    return tuple(dict.fromkeys((*own, *also, *(("layer",) if guide == "layer" else ()))))


def _hits(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return (logits.argmax(dim=1) == _target(batch)).sum()


def _kl(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    if isinstance(batch.dense, TopClasses):
        return batch.dense.divergence(logits).sum()
    log_q, log_p = functional.log_softmax(logits, dim=1), functional.log_softmax(_dense(batch), dim=1)
    return functional.kl_div(log_q, log_p, reduction="sum", log_target=True)


def _mse(output: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The sum over examples of the mean squared difference within each."""
    return (output - _dense(batch)).square().flatten(1).mean(dim=1).sum()


def _loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(logits, _target(batch), reduction="sum")


MEASURES: dict[str, Callable[[torch.Tensor, Batch], torch.Tensor]] = {
    "accuracy": _hits,
    "kl": _kl,
    "mse": _mse,
    "loss": _loss,
}


def _target(batch: Batch) -> torch.Tensor:
    if batch.target is None:
        raise DataError("classification needs targets: give select and report batches labels")
    return batch.target


def _dense(batch: Batch) -> torch.Tensor:
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
    outputs: torch.Tensor = _tensor_in(batch.dense)
    return outputs


def kept_for(fitness: Fitness) -> Callable[[Any], Any]:
    """What is kept of the dense network's outputs for a fitness: for the KL of many classes TopClasses suffice."""
    options, called = ({}, fitness) if not isinstance(fitness, functools.partial) else (fitness.keywords, fitness.func)
    if called is not classification or "mse" in options.get("report", ()):
        return lambda output: output

    def kept(output: Any) -> Any:
        classes = kept_classes(_tensor_in(output))
        return classes if isinstance(classes, TopClasses) else output

    return kept


def _logits(output: Any) -> torch.Tensor:
    logits = _tensor_in(output)
    if isinstance(logits, torch.Tensor) and logits.dim() == 2:
        return logits
    raise PluginError(
        f"classification expects a network that returns (b, classes) logits, got {_described(output)}. Set fitness to "
        "autoprune.measure.fitness:reconstruction with `guide: mse`, or to a function of your own."
    )


def _tensor_in(output: Any) -> Any:
    """The main tensor of an output: the attribute or key `logits`, as in outputs of transformers, or the only tensor of
    a tuple, list or mapping. Any other output is returned as it is.
    """
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, torch.Tensor):
        return named
    parts = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(parts, tuple | list):
        tensors = [part for part in parts if part is not None]
        return tensors[0] if len(tensors) == 1 else output
    return output


def _described(output: Any) -> str:
    if isinstance(output, torch.Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    inside = f" of {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    inside = f" of {', '.join(map(_described, output))}" if isinstance(output, tuple | list) else inside
    return f"a {type(output).__name__}{inside}"
