"""The proof that surgery is right: the small network computes what the masked original computes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from autoprune.core.unit import Unit
from autoprune.errors import VerifyError
from autoprune.prune.containers import tensors_of
from autoprune.prune.copying import named_tensors
from autoprune.prune.examples import Example, Examples, as_examples
from autoprune.prune.masks import Masked
from autoprune.prune.passes import comparable, running
from autoprune.prune.skip import within
from autoprune.prune.structure import Branch, Pass, Structure
from autoprune.prune.surgery import Positions, cut, kept_indices, rebuild
from autoprune.prune.watch import Watch, line_of_error

TOLERANCE = 1e-4
# how many of n positions stay: any number, another one for each unit; all but one; one. What a forward relies on may
# fit one of them by chance, hardly all
TRIALS: tuple[Callable[[int, np.random.Generator], int], ...] = (
    lambda n, rng: int(rng.integers(1, n)),
    lambda n, rng: n - 1,
    lambda n, rng: 1,
)


@dataclass(frozen=True)
class VerifyReport:
    """How far the small network's outputs are from the masked original's.

    `errors` has, for each output tensor of each call in order, the largest absolute difference over the largest
    absolute value of the reference, in eval or train mode, whichever is larger; inf where shapes differ or a value is
    not finite. `compared` says what was compared with what.
    `normalised` names the units with a normalisation or another reduction over their positions: the reference takes
    it over the positions that stay.
    """

    errors: tuple[float, ...]
    compared: str
    normalised: tuple[str, ...] = ()

    @property
    def worst(self) -> float:
        return max(self.errors, default=float("inf"))

    @property
    def ok(self) -> bool:
        return self.worst <= TOLERANCE


def verify_positions(
    model: nn.Module,
    small: nn.Module,
    structure: Structure,
    positions: Positions,
    example_inputs: Examples,
    weights: Mapping[str, torch.Tensor] | None = None,
    *,
    passes: Sequence[Pass] | None = None,
    share: bool = False,
) -> VerifyReport:
    """Compares a small network with the original in which nothing sees what was removed (see masks.py).

    They are compared in all passes of the structure, or in those given, in train mode on copies.

    `weights` are small tensors that differ from slices of the model's own, as compensation and batch norms make them:
    in the reference they take the places their indices came from. Both networks compute in float32 at least.
    With `share` the reference has the model's own parameters, to which some forward passes write.

    Raises VerifyError for example inputs that are not those of calls the structure was found with.
    """
    dense = rebuild(model, _restored(model, structure, positions, weights or {}), {}, structure.adapted, share=share)
    pair = _precise(small), _precise(dense)
    examples = _precise_examples(example_inputs, structure)
    errors: dict[tuple[str, int], float] = {}  # by call and output; of both modes the larger one
    for each in structure.passes if passes is None else passes:
        if each.example in examples:
            for place, error in enumerate(_errors(*pair, structure, positions, each, examples[each.example])):
                errors[each.example, place] = max(error, errors.get((each.example, place), 0.0))
    removed = [unit for unit in structure.units if len(positions.get(unit.name, range(unit.width))) < unit.width]
    across = tuple(unit.name for unit in removed if unit.normalised)
    return VerifyReport(
        tuple(errors.values()),
        f"the small {type(small).__name__} with the original, in which products get zeros where positions were removed"
        + (" and normalisations run over the positions that stay" if across else ""),
        across,
    )


def _errors(
    small: nn.Module, dense: nn.Module, structure: Structure, positions: Positions, each: Pass, example: Example
) -> list[float]:
    """How far the outputs of one pass are apart, output by output."""
    shapes_only = any(parameter.is_meta for parameter in dense.parameters())
    watch = None if shapes_only else Masked(structure, positions, each.traced)
    left = outputs(small, example, train=each.train)
    right = outputs(dense, example, watch, train=each.train)
    if len(left) != len(right):
        return [float("inf")]
    return [largest_difference(a, b) for a, b in zip(left, right, strict=True)]


def demote_wrong_units(model: nn.Module, structure: Structure, example_inputs: Examples, seed: int = 0) -> Structure:
    """The structure without the units whose removal does not compute what masking computes.

    Positions are removed from all units at once (a random number of each, one of each, all but one of each; of the
    branches one half, then the other half, then none, since what is in one that is gone proves nothing). When that
    fails, and leaving two positions instead of one does not help, the units are halved until the wrong ones are found;
    they become frozen, with what happened as the reason. On the meta device, where there are no numbers, only shapes
    are compared.
    """
    probe = randomised(model, seed)

    def failure(units: Sequence[Unit], trial: Positions) -> str:
        return _failure(probe, structure, {unit.name: trial[unit.name] for unit in units}, example_inputs)

    while structure.units:
        failures = ((trial, failure(structure.units, trial)) for trial in _trials(structure, seed))
        trial, why = next((pair for pair in failures if pair[1]), ({}, ""))
        if not why:
            break
        roomier = structure.keeping_two()
        if roomier != structure and not any(failure(roomier.units, trial) for trial in _trials(roomier, seed)):
            return roomier
        structure = structure.demote(_culprits(structure.units, why, functools.partial(failure, trial=trial)))
    return structure


def _culprits(
    units: Sequence[Unit], why: str, failure: Callable[[Sequence[Unit]], str], beside: Sequence[Unit] = ()
) -> dict[str, str]:
    """The units that fail together with those beside them, by halving, branches apart from the others first; of a
    clash the later ones go.
    """
    if len(units) == 1:
        return {units[0].name: f"together with other units: {why}" if beside else why}
    middle = sum(not unit.is_branch for unit in units)
    if middle in (0, len(units)):
        middle = len(units) // 2
    first, second = units[:middle], units[middle:]
    found: dict[str, str] = {}
    for half in (first, second):
        if reason := failure([*beside, *half]):
            found |= _culprits(half, reason, failure, beside)
    return found or _culprits(second, why, failure, [*beside, *first])


def _trials(structure: Structure, seed: int) -> list[Positions]:
    rng = np.random.default_rng(seed)
    sides = [*_sides(structure.branches, np.random.default_rng(seed)), set()]
    return [
        {
            u.name: np.arange(int(u.name not in gone))
            if u.is_branch
            else np.sort(rng.permutation(u.width)[: u.allowed(keep(u.width, rng))])
            for u in structure.units
        }
        for keep, gone in zip(itertools.cycle(TRIALS), sides)
    ]


def _sides(branches: Mapping[str, Branch], rng: np.random.Generator) -> list[set[str]]:
    """The branches in two random halves; in more sets where that keeps apart those that lie inside each other."""
    sides: list[set[str]] = [set(), set()]
    for index in rng.permutation(len(branches)):
        name = list(branches)[index]
        free = [side for side in sides if not any(_touch(branches[name], branches[other]) for other in side)]
        if not free:
            sides.append({name})
            continue
        min(free, key=len).add(name)
    return sides


def _touch(first: Branch, second: Branch) -> bool:
    """Whether something goes with both branches."""
    pairs = ((first.modules, second.modules), (second.modules, first.modules))
    return any(within(module, others) for modules, others in pairs for module in modules)


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose batch norm statistics, biases, and parameters that are all one number, are random in 0.5..1.5.

    So no error hides behind a zero, or behind an activation that is shut.
    """
    probe = rebuild(model, {}, {})
    generator = torch.Generator().manual_seed(seed)
    statistics = [
        tensor
        for module in probe.modules()
        for name, tensor in module.named_buffers(recurse=False)
        if name in ("running_mean", "running_var")
    ]
    biases = [p for name, p in probe.named_parameters() if name.endswith("bias") and p.numel() > 1]
    constant = [p for p in probe.parameters() if p.numel() > 1 and not p.is_meta and bool((p == p.flatten()[0]).all())]
    for tensor in [*statistics, *biases, *constant]:
        if tensor.is_floating_point() and not tensor.is_meta:
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return probe


def _failure(model: nn.Module, structure: Structure, positions: Positions, example_inputs: Examples) -> str:
    """Why the network without the other positions is wrong; empty when it is right."""
    try:
        small = cut(model, structure, positions, share=True)
        passes = [each for run, each in enumerate(structure.passes) if each.traced == run]
        report = verify_positions(model, small, structure, positions, example_inputs, passes=passes, share=True)
    except Exception as error:  # whatever a forward does with a size it did not expect is a finding, not a crash
        cause = error.__cause__ or error
        return f"does not run with fewer positions: {type(cause).__name__} at {line_of_error(cause)}: {cause}"
    return "" if report.ok else f"pruned and masked outputs differ by {report.worst:.2g} relative"


def outputs(
    model: nn.Module, example: Example, watch: Watch | None = None, *, train: bool = False
) -> list[torch.Tensor]:
    """The tensors a call of a model returns, without gradients and in full float32."""
    with running(model, train=train) as network:
        if watch is None:
            return comparable(model, example, example.run(network))
        with watch.watching(network):
            found = comparable(model, example, example.run(network, watch=watch))
        if isinstance(watch, Masked):
            watch.check_complete()
        return found


def _restored(
    model: nn.Module, structure: Structure, positions: Positions, weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Full tensors with the values of small ones at the indices they keep."""
    tensors = named_tensors(model)
    indices = kept_indices(structure.units, positions, tensors)
    return {name: _scattered(tensors[name], small, indices.get(name, {})) for name, small in weights.items()}


def _scattered(full: torch.Tensor, small: torch.Tensor, dims: Mapping[int, np.ndarray]) -> torch.Tensor:
    grid = [dims.get(dim, np.arange(length)) for dim, length in enumerate(full.shape)]
    result = full.detach().clone()
    if not full.dim():
        return small.detach().clone()
    result[tuple(torch.from_numpy(axis).to(full.device) for axis in np.ix_(*grid))] = small.to(full.dtype)
    return result


def _precise(model: nn.Module) -> nn.Module:
    """The model itself, or a copy in float32 of one with less precision."""
    low = any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters())
    return rebuild(model, {}, {}).float() if low else model


def _precise_examples(example_inputs: Examples, structure: Structure) -> dict[str, Example]:
    """The calls by name, in float32 where they have less precision. VerifyError for one the structure does not know."""
    known = dict.fromkeys(each.example for each in structure.passes)
    examples = {example.name: _precise_example(example) for example in as_examples(example_inputs)}
    if unknown := [name for name in examples if name not in known]:
        raise VerifyError(
            f"expected the calls that the structure was found with, {', '.join(map(repr, known))}, got "
            f"{', '.join(map(repr, unknown))}. Pass the same example inputs to find_structure and verify."
        )
    return examples


def _precise_example(example: Example) -> Example:
    args, kwargs = example.inputs()
    low = [x for x in tensors_of((args, kwargs), caches=True) if x.dtype in (torch.float16, torch.bfloat16)]
    for tensor in low:  # of the copy
        tensor.data = tensor.data.float()
    return replace(example, args=args, kwargs=kwargs)


def largest_of(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float:
    """The largest difference of two lists of outputs; inf where they are not of one length."""
    if len(first) != len(second):
        return float("inf")
    return max(map(largest_difference, first, second), default=0.0)


def largest_difference(small: torch.Tensor, reference: torch.Tensor) -> float:
    if small.shape != reference.shape:
        return float("inf")
    if not reference.numel() or reference.is_meta:
        return 0.0
    small, reference = small.cpu().double(), reference.cpu().double()  # integers and flags are compared alike
    scale = reference.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    error = float(((small - reference).abs().max() / scale).item())
    return error if np.isfinite(error) else float("inf")
