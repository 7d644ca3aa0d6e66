"""Copies with random values for proofs, so that no error is hidden by a zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn

from autoprune.errors import VerifyError
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.modules.ties import find_ties
from autoprune.prune.passes.compare import precise_outputs
from autoprune.prune.passes.examples import Example, Examples, examples_for
from autoprune.prune.passes.site import CallSite
from autoprune.prune.passes.watch import Route
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import rebuild

NEAR = (
    0.1,
    0.03,
    0.01,
    0.003,
)  # relative distances of probes from the trained values, if values decide which operators run


def random_probe(model: nn.Module, structure: Structure, example_inputs: Examples, seed: int) -> nn.Module:
    """A randomised copy that runs the model's operators, as far from the trained values as that allows.

    If values decide which operators run (a router, an exit), random ones can send everything one way.
    """
    probe = randomised(model, seed)
    if any(parameter.is_meta for parameter in model.parameters()):
        return probe
    examples = known_examples(model, example_inputs, structure)
    trained = _paths(model, structure, examples)
    for amount in NEAR:
        if _paths(probe, structure, examples) == trained:
            break
        probe = randomised(model, seed, amount)
    return probe


def _paths(model: nn.Module, structure: Structure, examples: Mapping[str, Example]) -> list[Counter[CallSite]]:
    """The number of visits at each site, in each traced pass."""
    network = rebuild(model, {}, {}, structure.adapted, share=True)
    watches = []
    for run, each in enumerate(structure.passes):
        if each.traced == run:
            watches.append(Route())
            precise_outputs(network, examples[each.example], watches[-1], train=each.train)
    return [watch.visits for watch in watches]


def randomised(model: nn.Module, seed: int, near: float = 0.0) -> nn.Module:
    """A copy whose batch norm statistics, biases, and constant parameters are random in 0.5..1.5.

    So no error is hidden by a zero, or by an inactive activation. With `near` they are the model's values times random
    numbers within this share of 1, and raised by as much of their mean size, so that no zero is left either. The other
    parameters are shared with the model.
    """
    tensors, names, ties = named_tensors(model), _redrawn(model), find_ties(model)
    owned = {ties[name].base if name in ties else name for name in names}
    probe = copy_model(model, {name: tensors[name].clone() for name in owned}, share=True)
    generator, own = torch.Generator().manual_seed(seed), named_tensors(probe)
    for tensor in (own[name] for name in names):
        drawn = torch.rand(tensor.shape, generator=generator).to(tensor)
        around = tensor * (1 + near * (2 * drawn - 1)) + near * drawn * (tensor.abs().mean() if tensor.any() else 1)
        tensor.data.copy_(around if near else drawn + 0.5)
    return probe


def _redrawn(model: nn.Module) -> list[str]:
    """Names of statistics, biases and constant parameters, in the order in which they are drawn, some of them twice."""
    names = {id(tensor): name for name, tensor in named_tensors(model).items()}
    statistics = [
        tensor
        for module in model.modules()
        for name, tensor in module.named_buffers(recurse=False)
        if name in ("running_mean", "running_var")
    ]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias") and p.numel() > 1]
    constant = [p for p in model.parameters() if p.numel() > 1 and not p.is_meta and bool((p == p.flatten()[0]).all())]
    drawn = [x for x in (*statistics, *biases, *constant) if x.is_floating_point() and not x.is_meta]
    return [names[id(tensor)] for tensor in drawn]


def known_examples(model: nn.Module, example_inputs: Examples, structure: Structure) -> dict[str, Example]:
    """The calls by name; VerifyError for one that is unknown to the structure."""
    known = dict.fromkeys(each.example for each in structure.passes)
    examples = {example.name: example for example in examples_for(model, example_inputs)}
    if unknown := [name for name in examples if name not in known]:
        raise VerifyError(
            f"expected the calls that the structure was found with, {', '.join(map(repr, known))}, got "
            f"{', '.join(map(repr, unknown))}. Pass the same example inputs to find_structure and verify."
        )
    return examples
