"""Integers that denote a width but that no forward pass reads: finds the axis whose size they are.

`num_features`, `inplanes` or `config.hidden_size` are read by code that runs later, for example to make a new
classifier. An integer follows an axis if its name denotes a width and its value is the size of exactly one axis at the
place where it is kept: among the tensors that the module's code has seen, else among those of the modules inside it. If
several axes have that size it stays, with a note.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import nn

from autoprune.core.cost import Polynomial
from autoprune.prune.modules.attributes import PathStep, get, last_name, numbers, place_of, says_width
from autoprune.prune.structure.axes import Axis, leaves, size
from autoprune.prune.structure.recorder import Recorder
from autoprune.prune.structure.structure import ModuleSize

Sizer = Callable[[Axis], Polynomial]
_LAST = ("num_features", "head_hidden_size", "inplanes", "in_planes", "_inplanes", "_in_planes", "num_chs")


def follow_widths(
    model: nn.Module, recorder: Recorder, sizer: Sizer, known: Iterable[ModuleSize]
) -> tuple[tuple[ModuleSize, ...], tuple[str, ...]]:
    """The integers that follow an axis besides those already known, and notes about the ambiguous ones."""
    search = _Search(model, recorder, sizer)
    of_axes = [*recorder.sizes.kept, *((module, attribute) for module, attribute, _ in recorder.module_sizes)]
    computed = recorder.sizes.numbers  # another number would change the result
    for module, path in (*((each.module, each.attribute) for each in known), *of_axes, *computed):
        with contextlib.suppress(
            AttributeError, IndexError, KeyError, TypeError
        ):  # rules may name attributes that a module lacks
            search.done.add(search.holder(module, path))
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.rnn.RNNBase):
            for path, value in numbers(module):
                search.add(name, path, value)
    return tuple(search.found), tuple(search.notes)


class _Search:
    def __init__(self, model: nn.Module, recorder: Recorder, sizer: Sizer) -> None:
        self.model, self.recorder, self.sizer = model, recorder, sizer
        self.done: set[tuple[int, tuple[PathStep, ...]]] = (
            set()
        )  # by the object that holds them: several modules may share a config
        self.found: list[ModuleSize] = []
        self.notes: list[str] = []
        self.roots = Counter(p for axes in recorder.roots.values() for p in map(self._key, axes))

    def holder(self, module: str, path: str) -> tuple[int, tuple[PathStep, ...]]:
        return place_of(self.model.get_submodule(module), path)

    def add(self, module: str, path: str, value: int) -> None:
        key = self.holder(module, path)
        if value < 2 or key in self.done or not says_width(path):
            return
        fitting = (
            [axis for axis in axes if size(axis) == value and _is_width(axis)] for axes in self._places(module, path)
        )
        axes = next(filter(None, fitting), [])
        chosen = self._choose(path, axes)
        if chosen is not None and chosen.units:
            self.done.add(key)
            self.found.append(ModuleSize(module, path, chosen))
        elif chosen is None and (units := sorted({u for a in axes for u in self.sizer(a).units})):
            self.done.add(key)
            self.notes.append(_ambiguous(module, path, value, units))

    def _choose(self, path: str, axes: Sequence[Axis]) -> Polynomial | None:
        """The size that an integer denotes; None if several are equally likely."""
        sizes = list({self._key(axis): self.sizer(axis) for axis in axes}.values())
        if len(sizes) < 2:
            return sizes[0] if sizes else Polynomial()
        if last_name(path) in _LAST:
            return self.sizer(axes[-1])
        most, second, *_ = sorted(sizes, key=lambda p: -self.roots[_text(p)])
        return most if self.roots[_text(most)] > 2 * self.roots[_text(second)] else None

    def _places(self, module: str, path: str) -> Iterator[list[Axis]]:
        """The axes at the module's own place, then those of the modules inside it, level by level."""
        named = self._module_beside(module, path)
        if named is not None:
            yield self._seen(named)
        yield self._seen(module)
        prefix = f"{module}." if module else ""
        inside = [name for name, _ in self.model.named_modules() if name.startswith(prefix) and name != module]
        for depth in range(1, 8):
            level = [name for name in inside if name[len(prefix) :].count(".") == depth - 1]
            yield [axis for name in level for axis in self._seen(name)]

    def _module_beside(self, module: str, path: str) -> str | None:
        """The module that a dictionary names under "module", beside the integer."""
        try:
            beside = get(self.model.get_submodule(module), path.rpartition("[")[0])["module"]
            name = f"{module}.{beside}" if module else beside
            self.model.get_submodule(name)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None
        return str(name)

    def _seen(self, module: str) -> list[Axis]:
        own = [
            f"{module}.{name}" if module else name
            for name, _ in self.model.get_submodule(module).named_parameters(recurse=False)
        ]
        roots = [axis for name in own for axis in self.recorder.roots.get(name, ())]
        return [*roots, *self.recorder.seen.get(module, {}).values()]

    def _key(self, axis: Axis) -> str:
        return _text(self.sizer(axis))


def _ambiguous(module: str, path: str, value: int, units: Sequence[str]) -> str:
    where = repr(module) if module else "the top module"
    return (
        f"{path!r} of {where} stays {value} in a small network: several independent widths have this size "
        f"({', '.join(units[:3])}{', ...' if len(units) > 3 else ''}). Set it where you need it."
    )


def _is_width(axis: Axis) -> bool:
    """Whether an axis is not the caller's, such as the height of an image."""
    return any(atom.frozen not in ("spatial", "model input") for atom in leaves(axis))


def _text(polynomial: Polynomial) -> str:
    return repr(sorted(polynomial.terms.items()))
