"""The proof that surgery is right: the small network computes the same as the masked original."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from autoprune.core.unit import Unit
from autoprune.errors import UnsupportedModel
from autoprune.prune.devices.memory import device_of
from autoprune.prune.devices.precision import has_float64
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.modules.skip import within
from autoprune.prune.passes.compare import (
    OUTPUT_TOLERANCE,
    largest_difference,
    largest_of,
    precise_outputs,
)
from autoprune.prune.passes.examples import Example, Examples
from autoprune.prune.passes.site import Pass
from autoprune.prune.passes.watch import Route, line_of_error
from autoprune.prune.structure.structure import Branch, Structure
from autoprune.prune.surgery.masked import Masked
from autoprune.prune.surgery.probes import known_examples, random_probe
from autoprune.prune.surgery.surgery import Positions, cut, kept_indices, rebuild

LARGEST_TOLERANCE = 1e-2  # largest tolerance, whatever the rounding
# number of n positions to keep: random for each unit; all but one; one. A forward's hidden assumption may hold for one
# of them by chance, hardly for all
TRIALS: tuple[Callable[[int, np.random.Generator], int], ...] = (
    lambda n, rng: int(rng.integers(1, n)),
    lambda n, rng: n - 1,
    lambda n, rng: 1,
)


@dataclass(frozen=True)
class VerifyReport:
    """The differences between the outputs of the small network and those of the masked original.

    Attributes:
        errors: for each output tensor of each call in order, the largest absolute difference over the largest absolute
            value of the reference, in eval or train mode, whichever is larger; inf if shapes differ or a value is not
            finite.
        compared: a sentence on what was compared.
        normalised: units with a normalisation or another reduction over their positions, which in the reference runs
            over the kept positions.
        tolerance: the largest allowed error, 1e-4 or more if float32 rounds more.
        parted: where the two networks ran different code; empty if they did not.
    """

    errors: tuple[float, ...]
    compared: str
    normalised: tuple[str, ...] = ()
    tolerance: float = OUTPUT_TOLERANCE
    parted: str = ""

    @property
    def worst(self) -> float:
        """The largest error."""
        return max(self.errors, default=float("inf"))

    @property
    def ok(self) -> bool:
        """Whether all errors are within the tolerance."""
        return self.worst <= self.tolerance


def verify_positions(
    model: nn.Module,
    small: nn.Module,
    structure: Structure,
    positions: Positions,
    example_inputs: Examples,
    weights: Mapping[str, torch.Tensor] | None = None,
    *,
    passes: Sequence[Pass] | None = None,
) -> VerifyReport:
    """Compares a small network with the masked original (masked.py).

    They are compared in all passes of the structure, or in the given ones, in train mode on copies. Every operator of
    both networks computes at least in float32 (precision.py). The reference shares the model's parameters.

    Args:
        model: the original.
        small: the small network.
        structure: the original's structure.
        positions: kept positions by unit.
        example_inputs: the calls that the structure was found with.
        weights: small tensors that differ from slices of the model's own, as after compensation; in the reference they
            are put at their original indices.
        passes: the passes to compare; None for all.

    Raises:
        VerifyError: a call is unknown to the structure.
    """
    dense = rebuild(model, _restored(model, structure, positions, weights or {}), {}, structure.adapted, share=True)
    comparison = _Comparison(structure, positions, structure.passes if passes is None else passes)
    examples = known_examples(model, example_inputs, structure)
    errors = comparison.errors(small, dense, examples)
    worst = max(errors, default=float("inf"))
    removed = [unit for unit in structure.units if len(positions.get(unit.name, range(unit.width))) < unit.width]
    across = tuple(unit.name for unit in removed if unit.normalised)
    return VerifyReport(
        errors,
        f"the small {type(small).__name__} with the original, in which products get zeros where positions were removed"
        + (" and normalisations run over the positions that stay" if across else ""),
        across,
        comparison.tolerance(small, dense, examples)
        if OUTPUT_TOLERANCE < worst <= LARGEST_TOLERANCE
        else OUTPUT_TOLERANCE,
        comparison.parted(small, dense, examples) if OUTPUT_TOLERANCE < worst < float("inf") else "",
    )


@dataclass(frozen=True)
class _Comparison:
    """A comparison, in some passes, of a small network with the dense one whose positions are masked."""

    structure: Structure
    positions: Positions
    passes: Sequence[Pass]

    def errors(
        self, small: nn.Module, dense: nn.Module, examples: Mapping[str, Example], dtype: torch.dtype = torch.float32
    ) -> tuple[float, ...]:
        """The difference of the outputs by call and output, the larger one of both modes."""
        found: dict[tuple[str, int], float] = {}
        for each in self._given(examples):
            for place, error in enumerate(self._errors_in(each, small, dense, examples, dtype)):
                found[each.example, place] = max(error, found.get((each.example, place), 0.0))
        return tuple(found.values())

    def _errors_in(
        self, each: Pass, small: nn.Module, dense: nn.Module, examples: Mapping[str, Example], dtype: torch.dtype
    ) -> list[float]:
        """The difference of each output in one pass, whose outputs are freed before the next one."""
        left = precise_outputs(small, examples[each.example], train=each.train, dtype=dtype)
        right = self._masked(dense, each, examples, dtype)
        pairs = list(zip(left, right, strict=True)) if len(left) == len(right) else []
        return [largest_difference(*pair) for pair in pairs] or [float("inf")]

    def tolerance(self, small: nn.Module, dense: nn.Module, examples: Mapping[str, Example]) -> float:
        """The tolerance for rounding, if both networks agree in float64: four times its effect on the dense network.

        At most LARGEST, and at least OUTPUT_TOLERANCE, which also applies to networks that differ in float64 or do not
        run in it. Networks on a device without float64 are compared on the CPU.
        """
        try:
            if not has_float64(device_of(dense)):
                small, dense = (copy_model(network).cpu() for network in (small, dense))
                examples = {name: each.converted(lambda x: x.cpu()) for name, each in examples.items()}
            if max(self.errors(small, dense, examples, torch.float64)) > OUTPUT_TOLERANCE:
                return OUTPUT_TOLERANCE
            rounded = max(
                largest_of(*(self._masked(dense, each, examples, dtype) for dtype in (torch.float32, torch.float64)))
                for each in self._given(examples)
            )
        except (UnsupportedModel, RuntimeError, TypeError):  # code or a device that requires float32
            return OUTPUT_TOLERANCE
        return min(max(4 * rounded, OUTPUT_TOLERANCE), LARGEST_TOLERANCE)

    def parted(self, small: nn.Module, dense: nn.Module, examples: Mapping[str, Example]) -> str:
        """Where the two networks run different operators, or select another number of rows; empty if they do not."""
        for each in self._given(examples):
            mask = self._mask(dense, each)
            if mask is None:
                continue
            path = Route()
            precise_outputs(small, examples[each.example], path, train=each.train)
            precise_outputs(dense, examples[each.example], mask, train=each.train)
            pairs = itertools.zip_longest(self._ways(path), self._ways(mask), fillvalue=("", "", 0))
            if (step := next((a for a, b in pairs if a != b), None)) is not None:
                return (
                    f"; they take different ways from {step[0] or 'the top module'!r} on: what the data decide, such "
                    "as a routing or an exit, falls differently where values all but tie"
                )
        return ""

    def _ways(self, path: Route) -> list[tuple[str, str, int]]:
        """The steps of a run outside removed branches."""
        branches = self.structure.branches
        gone = [m for name in branches if not len(self.positions.get(name, (0,))) for m in branches[name].modules]
        return [step for step in path.steps if not within(step[0], gone)]

    def _given(self, examples: Mapping[str, Example]) -> list[Pass]:
        return [each for each in self.passes if each.example in examples]

    def _masked(
        self, dense: nn.Module, each: Pass, examples: Mapping[str, Example], dtype: torch.dtype
    ) -> list[torch.Tensor]:
        """The outputs of the masked original."""
        mask = self._mask(dense, each)
        return precise_outputs(dense, examples[each.example], mask, train=each.train, dtype=dtype)

    def _mask(self, dense: nn.Module, each: Pass) -> Masked | None:
        shapes_only = any(parameter.is_meta for parameter in dense.parameters())
        return None if shapes_only else Masked(self.structure, self.positions, each.traced)


def demote_wrong_units(model: nn.Module, structure: Structure, example_inputs: Examples, seed: int = 0) -> Structure:
    """The structure without the units for which removal and masking differ.

    Positions are removed from all units at once (a random number of each, one of each, all but one of each; of the
    branches one half, then the other half, then none, since nothing inside a removed branch is tested). If that fails,
    and keeping two positions instead of one does not help, the units are bisected until the wrong ones are found; they
    become frozen, with the failure as the reason. On the meta device, which has no numbers, only shapes are compared.
    """
    probe = random_probe(model, structure, example_inputs, seed)

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
    """The units that fail together with those in `beside`, found by bisection, branches before the others.

    Of units that fail only together, the later ones are chosen.
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
    """The branches in two random halves; in more sets if that separates branches that lie inside each other."""
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
    """Whether two branches remove something in common."""
    pairs = ((first.modules, second.modules), (second.modules, first.modules))
    return any(within(module, others) for modules, others in pairs for module in modules)


def _failure(model: nn.Module, structure: Structure, positions: Positions, example_inputs: Examples) -> str:
    """Why the network with these positions is wrong; empty if it is right."""
    try:
        small = cut(model, structure, positions, share=True)
    except Exception as error:  # raised by a fix, for example
        return _not_running(error)
    for each in (each for run, each in enumerate(structure.passes) if each.traced == run):
        where = f" in {each.where}" if each.traced else ""
        try:
            report = verify_positions(model, small, structure, positions, example_inputs, passes=[each])
        except Exception as error:  # any failure of a forward with an unexpected size is a finding, not a crash
            return _not_running(error, where)
        if not report.ok:
            return f"pruned and masked outputs differ by {report.worst:.2g} relative{where}{report.parted}"
    return ""


def _not_running(error: Exception, where: str = "") -> str:
    cause = error.__cause__ or error
    return f"does not run with fewer positions{where}: {type(cause).__name__} at {line_of_error(cause)}: {cause}"


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
