"""Statistics of the loss for criteria that request them: gradients and the Hessian's trace over producer weights.

Calibration data have no labels. The loss is the cross entropy with a class that the dense network itself gives: its
prediction, or, for gradients of single examples, a class drawn from its output. Language models predict the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoprune.core.unit import Unit
from autoprune.errors import PluginError
from autoprune.prune.criteria.contract import UnitStatistics
from autoprune.prune.devices.halving import whole_batches
from autoprune.prune.devices.precision import precise_dtype
from autoprune.prune.passes.containers import copied, tensors_of
from autoprune.prune.passes.examples import first_examples
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import rebuild

LOSS_EXAMPLES = 128  # number of examples for single gradients and Hessian products, which take passes of their own
TRACE_PROBES = 8  # number of random vectors for a trace; all positions share their noise, and only the order matters

Batches = Sequence[tuple[torch.Tensor, ...]]
Places = list[tuple[str, int, torch.Tensor]]
Products = dict[str, torch.Tensor]  # values of each tensor's own shape, by name


def collect_gradients(
    model: nn.Module,
    structure: Structure,
    units: Sequence[Unit],
    batches: Iterable[tuple[torch.Tensor, ...]],
    needs: Collection[str],
    seed: int = 0,
) -> dict[str, UnitStatistics]:
    """Collects statistics of the loss for units.

    It differentiates a copy of the model in eval mode, at least in float32; the model itself, its gradients and their
    flags are not changed. "gradients" uses all examples, the other statistics the first LOSS_EXAMPLES.

    Args:
        model: the dense network, which returns (b, classes) logits.
        structure: its structure.
        units: the units whose producer weights are differentiated.
        batches: inputs of the model.
        needs: the statistics to collect, some of "gradients", "sample_gradients" and "curvature".
        seed: the seed of drawn classes and random vectors.

    Returns:
        The statistics by unit name, without those of consumers.

    Raises:
        PluginError: the network does not return (b, classes).
    """
    probe, weights = _differentiable(model, structure, units)
    everything = [tuple(_precise(x) for x in inputs) for inputs in batches]
    some = first_examples(everything, LOSS_EXAMPLES)
    generator = torch.Generator().manual_seed(seed)
    makers: dict[str, tuple[Callable[[tuple[torch.Tensor, ...]], Products], Batches]] = {
        "gradients": (lambda inputs: _saliency(_loss(probe, inputs), weights), everything),
        "sample_gradients": (lambda inputs: _saliency(_loss(probe, inputs, generator), weights), _singly(some)),
        "curvature": (lambda inputs: _curvature(_loss(probe, inputs), weights, generator), some),
    }
    places = {unit.name: _places(unit, weights) for unit in units}
    found: dict[str, dict[str, torch.Tensor]] = {unit.name: {} for unit in units}
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused attentions have no second derivative
        for need, (make, pieces) in makers.items():
            if need in needs:
                lengths = torch.tensor([len(inputs[0]) for inputs in pieces], dtype=torch.float64)
                with whole_batches(pieces, stage="statistics of the loss"):
                    rows = [_by_unit(units, places, make(inputs)) for inputs in pieces]
                for unit in units:
                    table = torch.stack([row[unit.name] for row in rows]).cpu().double()  # (pieces, n)
                    found[unit.name][need] = (lengths @ table) / lengths.sum() if need == "curvature" else table
    return {
        name: UnitStatistics((), own.get("gradients"), own.get("sample_gradients"), own.get("curvature"))
        for name, own in found.items()
    }


def _differentiable(
    model: nn.Module, structure: Structure, units: Sequence[Unit]
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A copy that is differentiable by the producer weights alone, and these weights by name."""
    probe = rebuild(model, {}, {}, structure.adapted, share=True).eval()
    if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in probe.parameters()):
        probe = probe.float()
    producers = {slot.tensor for unit in units for slot in unit.with_role("out")}
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in probe.named_parameters():
        parameter.requires_grad_(name in producers)
        if name in producers:
            weights[name] = parameter
    return probe, weights


def _precise(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _singly(batches: Batches) -> list[tuple[torch.Tensor, ...]]:
    return [tuple(x[i : i + 1] for x in inputs) for inputs in batches for i in range(len(inputs[0]))]


def _loss(model: nn.Module, inputs: tuple[torch.Tensor, ...], drawn: torch.Generator | None = None) -> torch.Tensor:
    """The mean cross entropy with the predicted classes, or with classes drawn from the output.

    For a language model it is that of the tokens of the inputs, each with the logits at the token before it; with
    `drawn`, of tokens drawn from these logits.
    """
    logits = next(iter(tensors_of(model(*copied(inputs)))))
    tokens = inputs[0]
    if logits.dim() == 3 and logits.shape[:2] == tokens.shape and not tokens.is_floating_point():
        logits = logits[:, :-1].flatten(0, 1)
        if drawn is None:
            return functional.cross_entropy(logits, tokens[:, 1:].flatten())
    if logits.dim() != 2 or not logits.is_floating_point():
        raise PluginError(
            "expected a network that returns (examples, classes), or (examples, tokens, vocabulary) for (examples, "
            f"tokens), for a criterion of gradients, got {tuple(logits.shape)} of {logits.dtype}. Take another "
            "criterion."
        )
    if drawn is None:
        return functional.cross_entropy(logits, logits.argmax(dim=1))
    return functional.cross_entropy(logits, drawn_classes(logits.detach().softmax(dim=1), drawn))


def drawn_classes(chances: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(b,) classes drawn with (b, classes) chances, as torch.multinomial draws them on the CPU, without fetching these.

    The random numbers are those of a generator on the CPU, whatever the device.
    """
    waits = torch.empty(chances.shape, dtype=chances.dtype).exponential_(generator=generator)
    return (chances / waits.to(chances.device)).argmax(dim=1)


def _saliency(loss: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> Products:
    """The products of weights and gradients, by name."""
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
    pairs = zip(weights.items(), gradients, strict=True)
    return {name: (weight.detach() * gradient) for (name, weight), gradient in pairs}


def _curvature(loss: torch.Tensor, weights: Mapping[str, torch.Tensor], generator: torch.Generator) -> Products:
    """The mean of z x Hz over random signs z, whose expectation is the Hessian's diagonal (Hutchinson 1990)."""
    values = list(weights.values())
    gradients = torch.autograd.grad(loss, values, create_graph=True, allow_unused=True, materialize_grads=True)
    total = [torch.zeros_like(value) for value in values]
    for _ in range(TRACE_PROBES):
        signs = [(torch.randint(2, v.shape, generator=generator) * 2.0 - 1.0).to(v) for v in values]
        product = torch.stack([(g * z).sum() for g, z in zip(gradients, signs, strict=True)]).sum()
        seconds = torch.autograd.grad(product, values, retain_graph=True, allow_unused=True, materialize_grads=True)
        total = [t + z * s / TRACE_PROBES for t, z, s in zip(total, signs, seconds, strict=True)]
    return dict(zip(weights, total, strict=True))


def _places(unit: Unit, weights: Mapping[str, torch.Tensor]) -> Places:
    """The producer weights of a unit, each with its dimension of positions and the (n, m) indices in it."""
    slots = unit.with_role("out")
    indices = [torch.from_numpy(slot.span.indices(np.arange(unit.width))) for slot in slots]
    pairs = zip(slots, indices, strict=True)
    return [(slot.tensor, slot.dim, own.to(weights[slot.tensor].device)) for slot, own in pairs]


def _by_unit(units: Sequence[Unit], places: Mapping[str, Places], products: Products) -> dict[str, torch.Tensor]:
    """(n,) sums over the producer weights of each position of each unit, which stay on the device."""
    precise = {name: product.detach().to(precise_dtype(product.device)) for name, product in products.items()}
    found = {}
    for unit in units:
        own = (precise[name].movedim(dim, 0)[indices].flatten(1).sum(dim=1) for name, dim, indices in places[unit.name])
        found[unit.name] = sum(own, next(iter(precise.values())).new_zeros(unit.width))
    return found
