"""Reuses outputs of the dense network for the layers before a candidate's first difference from it.

A probe that changes one unit does not affect the modules that run before it. If a candidate first differs at some
moment of the forward pass, the outermost modules that are complete by then (`Calls.complete`) are not run: they return
their outputs in the dense network for the same batch. Only the outputs that are read after the cut are kept; the others
become tensors on the meta device, which have a shape and no values, so that an operator that reads one yields no values
either. Which outputs are read is tested, not inferred, once per cut: the dense network runs with the last 1, 2, 4, ...
outputs real, until its own output is unchanged bit for bit. If it never is, nothing is reused at that cut. For models
whose modules run in no fixed order the reuse is lost, but never correctness.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from autoprune.core.cache import ByteCache
from autoprune.measure.calls import Calls, record_calls
from autoprune.measure.following import Followed
from autoprune.prune.modules.batch_norms import tracked_norms
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.passes.containers import copied, tensors_of
from autoprune.prune.surgery.surgery import Recipe

Outputs = Mapping[str, Sequence[Any]]  # by module, one output per call
ForwardReplacement = Callable[[Any, Any, Any], Any]  # (the original forward, args, kwargs) -> output


@dataclass(frozen=True)
class Cut:
    """A point of the forward pass before which outputs of the dense network can be reused.

    Attributes:
        moment: the moment in `Calls`.
        modules: the outermost modules that are complete by then; if there are none, nothing can be reused.
        needed: the modules whose outputs are read afterwards.
    """

    moment: int
    modules: tuple[str, ...] = ()
    needed: frozenset[str] = frozenset()


@dataclass
class Prefixes:
    """A cache of the outputs of the dense network's modules at the cuts of the candidates so far.

    It is filled while candidates run, as a candidate computes the same as the dense network before its cut. Above the
    limit the earliest cut is dropped, and no cut before it is kept from then on: its tensors are the largest and save
    the least. As probes visit the cuts cyclically, dropping the least recently used cut would drop each one just before
    its next use.

    Attributes:
        dense: the dense network, built as candidates are.
        recipe: its recipe.
        example: inputs that it runs on.
        limit: the number of bytes that are kept at most.
        calls: the order of its calls.
    """

    dense: nn.Module
    recipe: Recipe
    example: tuple[torch.Tensor, ...]
    limit: int
    calls: Calls = field(init=False)
    _cuts: dict[int, Cut] = field(default_factory=dict)
    _kept: ByteCache[int, dict[Hashable, Outputs]] = field(init=False)  # by moment
    _closed: int = -1  # no cut up to this moment is kept any more
    _written: set[str] = field(default_factory=set)  # modules whose outputs later modules change in place

    def __post_init__(self) -> None:
        self.calls = record_calls(self.dense, self.example)
        self._kept = ByteCache(self.limit, first=min)
        self._tensors = named_tensors(self.dense)

    @property
    def bytes(self) -> int:
        """The number of bytes that are kept now."""
        return self._kept.held

    def cut(self, network: nn.Module, recipe: Recipe) -> Cut:
        """The cut at which a candidate's network first differs from the dense network."""
        own = named_tensors(network)
        changed = differing(self._tensors, own)
        resized = [module for module, sizes in recipe.sizes.items() if sizes != self.recipe.sizes.get(module)]
        moment = self.calls.first_touched(changed, [*resized, *recipe.skipped])
        # if a batch norm runs again after the difference, its statistics change for its earlier calls as well
        return self._cut_at(self.calls.before_crossing(moment, list(tracked_norms(self.dense))))

    @contextlib.contextmanager
    def reused(self, network: nn.Module, cut: Cut, followed: Followed) -> Iterator[None]:
        """Makes a candidate's network begin, on known batches, at its cut or at the latest kept cut before it."""
        passing = _Pass(self, network, cut, followed)
        enter = network.register_forward_pre_hook(passing.enter)
        leave = network.register_forward_hook(passing.leave, always_call=True)
        try:
            yield
        finally:
            enter.remove()
            leave.remove()

    def closest(self, cut: Cut, key: Hashable) -> tuple[Cut, Outputs] | None:
        """The latest cut, up to the given one, whose outputs are kept for a batch, with these outputs."""
        for moment in sorted((moment for moment in self._kept if moment <= cut.moment), reverse=True):
            if key in self._kept[moment]:
                return self._cuts[moment], self._kept[moment][key]
        return None

    def wants(self, cut: Cut, key: Hashable) -> bool:
        """Whether the outputs at a cut should be kept and are not kept yet."""
        return bool(cut.modules) and cut.moment > self._closed and key not in self._kept.get(cut.moment, {})

    def keep(self, cut: Cut, key: Hashable, outputs: Outputs) -> None:
        sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in real_tensors(outputs)}
        size = self._kept.size(cut.moment) + sum(sizes.values())
        for moment in self._kept.put(cut.moment, {**self._kept.get(cut.moment, {}), key: outputs}, size):
            self._closed = moment

    def forget(self, cut: Cut, key: Hashable) -> None:
        """Drops the outputs for a batch because they were written to; outputs at this cut are copied from then on."""
        self._written.update(cut.modules)
        for moment in self._kept:
            self._kept[moment].pop(key, None)

    def is_written(self, module: str) -> bool:
        """Whether a later module changes the output of a module in place."""
        return module in self._written

    def _cut_at(self, moment: int) -> Cut:
        if moment not in self._cuts:
            self._cuts[moment] = self._prove(moment)
        return self._cuts[moment]

    def _prove(self, moment: int) -> Cut:
        """The cut with the fewest kept outputs that leave the dense network's own output unchanged."""
        with evaluating(self.dense), torch.no_grad():
            modules = self.calls.complete(moment)
            outputs, expected = self._recorded(modules)
            usable = [name for name in modules if name in outputs]
            self.dense(*(x.flip(0) + 1 if x.is_floating_point() else x.flip(0) for x in self.example))
            kept = 1
            while usable:
                needed = frozenset(usable[-kept:])
                if self._unharmed(outputs, needed, expected):
                    return Cut(moment, tuple(usable), needed)
                if kept >= len(usable):
                    break
                kept *= 2
        return Cut(moment)

    def _recorded(self, modules: Sequence[str]) -> tuple[dict[str, list[Any]], Any]:
        """The outputs of modules and of the network on the example. Modules that return no tensors are left out."""
        outputs: dict[str, list[Any]] = {}
        seen: list[tuple[str, torch.Tensor, int]] = []

        def noting(name: str) -> ForwardReplacement:
            def run(original: Any, args: Any, kwargs: Any) -> Any:
                output = original(*args, **kwargs)
                outputs.setdefault(name, []).append(copied(output))
                seen.extend((name, tensor, tensor._version) for tensor in tensors_of(output))
                return output

            return run

        with replaced_forwards(self.dense) as replace:
            for name in modules:
                replace(name, noting(name))
            expected = self.dense(*copied(self.example))
        self._written.update(name for name, tensor, version in seen if tensor._version != version)
        return {name: made for name, made in outputs.items() if all(map(is_plain, made))}, expected

    def _unharmed(self, outputs: Outputs, needed: Collection[str], expected: Any) -> bool:
        """Whether the dense network computes the same when only these modules return values."""
        with replaced_forwards(self.dense) as replace:
            for name, made in outputs.items():
                replace(name, _returning([copied(o) if name in needed else valueless(o) for o in made]))
            try:
                got = self.dense(*copied(self.example))
            except Exception:  # operators and the model's code may raise anything if they read a tensor without values
                return False
        ours, theirs = tensors_of(got), tensors_of(expected)
        return bool(theirs) and len(ours) == len(theirs) and all(map(_same, theirs, ours))


class _Pass:
    """The forward passes of one candidate's network: returns kept outputs and records new ones."""

    def __init__(self, prefixes: Prefixes, network: nn.Module, cut: Cut, followed: Followed) -> None:
        self.prefixes, self.network, self.cut, self.followed = prefixes, network, cut, followed
        self._stack = contextlib.ExitStack()
        self._key: Hashable = None
        self._made: dict[str, list[Any]] = {}
        self._lent: list[tuple[torch.Tensor, int]] = []  # with their versions when they were lent

    def enter(self, network: nn.Module, args: Any) -> None:
        self._stack.close()
        self._key, self._made, self._lent = self.followed.current, {}, []
        if self._key is None or not self.cut.modules or torch.is_inference_mode_enabled():
            return
        replace = self._stack.enter_context(replaced_forwards(network))
        found = self.prefixes.closest(self.cut, self._key)
        lent = found[1] if found is not None else {}
        for name, outputs in lent.items():
            replace(name, self._lend(name, iter(outputs)))
        if self.prefixes.wants(self.cut, self._key):
            for name in self.cut.modules:
                replace(name, self._note(name))  # wraps the replacement above if it is the same module

    def leave(self, network: nn.Module, args: Any, output: Any) -> None:
        self._stack.close()
        written = any(tensor._version != version for tensor, version in self._lent)
        if written:
            self.prefixes.forget(self.cut, self._key)
        elif output is not None and self._made and set(self._made) == set(self.cut.modules):
            self.prefixes.keep(self.cut, self._key, self._made)
        self._made = {}

    def _lend(self, name: str, outputs: Iterator[Any]) -> ForwardReplacement:
        def run(original: Any, args: Any, kwargs: Any) -> Any:
            output = next(outputs)
            if self.prefixes.is_written(name):
                return copied(output)
            self._lent += [(tensor, tensor._version) for tensor in tensors_of(output)]
            return output

        return run

    def _note(self, name: str) -> ForwardReplacement:
        def run(original: Any, args: Any, kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            self._made.setdefault(name, []).append(self._memory_of(name, output))
            return output

        return run

    def _memory_of(self, name: str, output: Any) -> Any:
        if name not in self.cut.needed:
            return valueless(output)
        if self.prefixes.is_written(name):
            return copied(output)
        self._lent += [(tensor, tensor._version) for tensor in tensors_of(output)]
        return output


@contextlib.contextmanager
def replaced_forwards(network: nn.Module) -> Iterator[Callable[[str, ForwardReplacement], None]]:
    """Yields a function (name, run) that replaces a module's forward by run(original, args, kwargs) in the context."""
    undo = contextlib.ExitStack()

    def replace(name: str, run: ForwardReplacement) -> None:
        module = network.get_submodule(name)
        original, own = module.forward, "forward" in vars(module)
        module.forward = lambda *args, **kwargs: run(original, args, kwargs)
        undo.callback(lambda: setattr(module, "forward", original) if own else delattr(module, "forward"))

    with undo:
        yield replace


def _returning(outputs: Sequence[Any]) -> ForwardReplacement:
    left = iter(outputs)
    return lambda original, args, kwargs: next(left)


def valueless(output: Any) -> Any:
    """Replaces the tensors of an output by tensors that have only a shape and a dtype."""
    return tree_map(lambda x: torch.empty_like(x, device="meta") if isinstance(x, torch.Tensor) else x, output)


def is_plain(output: Any) -> bool:
    """Whether an output consists of tensors and constants in lists, tuples and mappings, so that it can be reused."""
    leaves = tree_leaves(output)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return bool(tensors) and all(isinstance(leaf, torch.Tensor | bool | int | float | str | None) for leaf in leaves)


def real_tensors(outputs: Outputs) -> list[torch.Tensor]:
    """The tensors that have values."""
    return [tensor for tensor in tensors_of(outputs) if not tensor.is_meta]


def differing(dense: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of tensors that are not among the others with the same shape and values.

    Results of comparisons on an accelerator are fetched from it together.
    """
    found = {name: _comparison(tensor, others.get(name)) for name, tensor in dense.items()}
    waiting = [name for name, same in found.items() if isinstance(same, torch.Tensor)]
    fetched = torch.stack([torch.as_tensor(found[name]) for name in waiting]).tolist() if waiting else []
    known = {**found, **dict(zip(waiting, fetched, strict=True))}
    return [name for name, same in known.items() if not same]


def _comparison(dense: torch.Tensor, other: torch.Tensor | None) -> bool | torch.Tensor:
    """Whether two tensors are the same; on an accelerator, a tensor that will say so."""
    if dense is other or dense.device.type == "cpu":
        return _same(dense, other)
    if other is None or other.shape != dense.shape or other.device != dense.device:
        return False
    return (dense == other).all()


def _same(dense: torch.Tensor, other: torch.Tensor | None) -> bool:
    """Whether a tensor is present and has the same shape and values."""
    if other is None or other.shape != dense.shape or other.is_meta:
        return False
    return dense is other or torch.equal(dense, other)
