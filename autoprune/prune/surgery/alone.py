"""Checks that a copy of a model is independent: it computes the same as the model, and shares no state with it.

Everything that follows works on copies. A copy that reads or writes something outside the module tree would be analysed
with features of another network or another input, and nothing later would show it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import copy_with, named_tensors
from autoprune.prune.modules.outside import Outside, Place
from autoprune.prune.modules.reach import reached
from autoprune.prune.modules.snapshots import preserved, same_values
from autoprune.prune.passes.compare import OUTPUT_TOLERANCE, largest_of, outputs
from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.passes.examples import Example
from autoprune.prune.passes.variation import differs, varied
from autoprune.prune.passes.watch import Execute, OperatorWatch, line_of_model, without_fast_paths

_ADVICE = (
    "Keep it in the model: an attribute of the module that writes it, written by a method of that module "
    "(`layer.register_forward_hook(self.keep)` instead of a function that closes over a dictionary)"
)


def check_alone(model: nn.Module, example: Example) -> tuple[str, ...]:
    """Compares a copy with the model on the example and on a variation of it; returns what could not be checked.

    The model and the state outside of it are restored.

    Raises:
        UnsupportedModel: copies of the model depend on something outside it, or two runs of it differ.
    """
    if any(tensor.is_meta for tensor in named_tensors(model).values()):
        return ()
    outside = Outside.of(model)
    outside.look()
    try:
        # watched runs are without fast paths, which round differently
        with torch.random.fork_rng(), without_fast_paths(model):
            return _Comparison(model, outside).run(example)
    finally:
        outside.restore()


class _Comparison:
    """Alternating runs of the model and of one copy."""

    def __init__(self, model: nn.Module, outside: Outside) -> None:
        self.model, self.outside = model, outside
        self.copied = copy_with(model, {})
        self.writes = False  # whether the runs of the copy have changed its parameters

    def run(self, example: Example) -> tuple[str, ...]:
        strangers = _Strangers(self.model)
        first = self._outputs(self.copied, example, strangers)
        if first is None:
            return ()
        self.writes = self._writes_parameters()
        strangers.check(self.outside)
        self._check_places(example)
        self._check_equal(first, outputs(self.copied, example), again=True)
        self.writes = self._writes_parameters()
        with preserved(self.model, parameters=self.writes):
            return self._run_both(example, first)

    def _fresh(self) -> nn.Module:
        """Another copy; it shares parameters unless runs write to them."""
        return copy_with(self.model, {}) if self.writes else copy_model(self.model, share=True)

    def _writes_parameters(self) -> bool:
        pairs = zip(self.copied.parameters(), self.model.parameters(), strict=True)
        return not all(same_values(a, b) for a, b in pairs)

    def _run_both(self, example: Example, first: Sequence[torch.Tensor]) -> tuple[str, ...]:
        self._check_equal(first, outputs(self.model, example))
        other, fresh, note = self._variation(example)
        if other is not None:
            seasoned = self._outputs(self.copied, other) or []
            self._check_equal(seasoned, outputs(self.model, other))
            self._check_equal(seasoned, fresh, again=True)
        return note

    def _outputs(
        self, network: nn.Module, example: Example, watch: OperatorWatch | None = None
    ) -> list[torch.Tensor] | None:
        """The outputs of the copy; None if the model itself does not run in eval mode, which trace.py handles."""
        try:
            return outputs(network, example, watch)
        except UnsupportedModel as error:
            if not self._model_runs(example):
                return None
            cause = error.__cause__ or error
            raise self._error(f"the copy fails with {type(cause).__name__}: {cause}") from cause

    def _model_runs(self, example: Example) -> bool:
        with preserved(self.model, parameters=True):
            try:
                outputs(self.model, example)
            except UnsupportedModel:
                return False
        return True

    def _check_places(self, example: Example) -> None:
        """Checks that what a run writes outside depends on neither inputs nor weights, like a table of constants."""
        written = {place.name: place for place in self.outside.changed() if place.tensors}
        written |= self._written_when_empty(example)
        contents = {name: place.tensors for name, place in written.items()}
        self.outside.restore()
        if not written:
            return
        changed = self._variation(example)[0]
        self.outside.restore()
        self.outside.empty()
        other = copy_with(self.model, {})
        for parameter in other.parameters():
            parameter.data.copy_(parameter.flip(tuple(range(parameter.dim()))) * 0.75)
        try:
            outputs(other, example if changed is None else changed)
        finally:
            again = {name: place.tensors for name, place in written.items()}
            self.outside.restore()
        found = [written[name] for name in written if not _equal(contents[name], again[name])]
        if found:
            raise self._error("a run writes to it", found)

    def _written_when_empty(self, example: Example) -> dict[str, Place]:
        """The places that are filled again after being emptied: caches that an earlier run has filled."""
        if not self.outside.empty():
            return {}
        empty = [(place, place.tensors) for place in self.outside.places]
        with contextlib.suppress(UnsupportedModel):  # if it needs the previous content
            outputs(self._fresh(), example)
            return {place.name: place for place, before in empty if place.tensors.keys() - before.keys()}
        return {}

    def _variation(self, example: Example) -> tuple[Example | None, list[torch.Tensor], tuple[str, ...]]:
        """Another input on which the model runs, with the outputs of a fresh copy; else None, and a note."""
        why = "they hold nothing but flags and integers that are all the same"
        for integers in (True, False):
            other = varied(example, integers=integers)
            if not differs(other, example):
                continue
            try:
                return other, outputs(self._fresh(), other), ()
            except UnsupportedModel as error:
                why = f"on other values {error.__cause__ or error}"
        note = f"The model was compared with its copy on the example inputs of call {example.name!r} alone: {why}."
        return None, [], (note,)

    def _check_equal(self, left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], *, again: bool = False) -> None:
        """Raises UnsupportedModel unless the outputs of copy and model, or with `again` of two runs, are equal."""
        difference = largest_of(left, right)
        if difference <= OUTPUT_TOLERANCE:
            return
        if not again:
            raise self._error(f"the outputs differ by {difference:.2g} relative")
        raise UnsupportedModel(
            f"expected {type(self.model).__name__} to compute the same when it runs twice on the same inputs in eval "
            f"mode, the outputs differ by {difference:.2g} relative: its forward is random or keeps a state. Nothing "
            "can be verified about such a network; make it repeatable, for example by a flag that turns the randomness "
            "off."
        )

    def _error(self, what: str, places: Sequence[Place] = ()) -> UnsupportedModel:
        found = places or [p for p in self.outside.places if p.changed or p.tensors]
        names = ", ".join(place.name for place in found[:5]) or "something that could not be located"
        return UnsupportedModel(
            f"expected a copy of {type(self.model).__name__} to compute what the model computes and to share nothing "
            f"with it, {what}: its forward depends on state outside the module tree: {names}. {_ADVICE}."
        )


class _Strangers(OperatorWatch):
    """Finds the original's tensors among those that a copy computes with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.original = {id(tensor): name for name, tensor in named_tensors(model).items()}
        self.found: dict[str, str] = {}

    def operator(self, name: str, overload: Any, arguments: dict[str, Any], execute: Execute) -> Any:
        for tensor in tensors_of(arguments):
            if id(tensor) in self.original:
                self.found.setdefault(
                    self.original[id(tensor)], f"{self.modules[-1] or 'the top module'!r} at {line_of_model()}"
                )
        return execute(arguments)

    def check(self, outside: Outside) -> None:
        """Raises UnsupportedModel if a copy has computed with a tensor of the original."""
        if not self.found:
            return
        modules = {id(module) for module in self.model.modules()}
        names = [place.name for place in outside.places if modules & reached(place.read(), 10_000).keys()]
        tensor, where = next(iter(self.found.items()))
        raise UnsupportedModel(
            f"expected a copy of {type(self.model).__name__} to share nothing with the model, {where} computes with "
            f"{tensor!r} of the original: its forward reaches the model through something outside the module tree: "
            f"{', '.join(names) or 'something that could not be located'}. Reach it through an attribute of the module."
        )


def _equal(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[path], right[path]) for path in left)
