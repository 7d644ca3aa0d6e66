"""The state that operators' rules read and write while a network runs: axes of tensors, roles, MACs, module sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoprune.core.unit import Role
from autoprune.prune.passes.by_tensor import ByTensor, by_tensor
from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.passes.site import CallSite
from autoprune.prune.structure.axes import Atom, Axis, freeze, fresh, one, size
from autoprune.prune.structure.sizes import Sizes

Axes = tuple[Axis, ...]
REARRANGING = frozenset(
    (
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "select"),
        *("slice", "index", "index_select", "sort", "clone", "_to_copy", "detach", "alias"),
    )
)
MIXING = frozenset(
    ("mul", "div", "add", "sub", "neg", "sum", "mean", "cat", "stack")
)  # preserve the sources of weights


@dataclass(eq=False)
class OperatorCall:
    """One operator call: its name, arguments by schema name, output, and place.

    `line` is the line of the model's own code, and the call is visit number `visit`, from 1, at its site. After it is
    recorded, `release` drops the tensors, which would otherwise live until the end of the trace.
    """

    operator: str
    arguments: Mapping[str, Any]
    output: Any
    module: str
    site: CallSite = field(default=CallSite("", ""))
    visit: int = 0
    line: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def where(self) -> str:
        place = f" at {self.line}" if self.line else ""
        return f"operator {self.operator} in {self.module or 'the top module'!r}{place}"

    def release(self) -> None:
        self.arguments, self.output = {}, None

    @property
    def shape(self) -> torch.Size:
        """The shape of the (first) output."""
        return torch.Size(self.outputs[0].shape)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments."""
        return tensors_of(dict(self.arguments))

    @property
    def outputs(self) -> list[torch.Tensor]:
        return tensors_of(self.output)


@dataclass(frozen=True)
class Contraction:
    """The multiply-accumulates of one operator: a constant times the sizes of the axes."""

    module: str
    constant: int
    axes: Axes


@dataclass(frozen=True)
class Reading:
    """An argument of one operator call that is summed, averaged or normalised along one of its dimensions."""

    site: CallSite
    visit: int
    argument: str
    dim: int
    axis: Axis
    run: int = 0  # index of the forward pass, from 0


@dataclass(frozen=True)
class RoleMark:
    """Parameters that produce ("out") or contract ("in") the positions of an axis."""

    parameters: Sequence[str]
    role: Role
    axis: Axis


@dataclass
class Recorder:
    """The axes of every tensor seen so far, in all passes, and the rules' notes."""

    run: int = 0  # index of the present forward pass
    contractions: list[Contraction] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    marks: list[RoleMark] = field(default_factory=list)
    normalised: list[Axis] = field(default_factory=list)  # a reduction that is no product runs over them
    convolved: list[Axis] = field(default_factory=list)  # made or contracted by convolutions
    attended: list[Axis] = field(default_factory=list)  # contracted or made by products of two activations
    batched: list[Axis] = field(default_factory=list)  # carried along side by side in such products
    routed: list[Axis] = field(default_factory=list)  # axes of experts: every row of an activation meets some
    computed: list[tuple[Axis, str]] = field(
        default_factory=list
    )  # axes of weights computed from activations, and the operator
    least: list[tuple[Axis, int]] = field(default_factory=list)  # least numbers of positions
    multiples: list[tuple[Axis, int]] = field(default_factory=list)  # numbers of positions must be multiples of these
    sizes: Sizes = field(default_factory=Sizes)
    module_sizes: list[tuple[str, str, Axis]] = field(default_factory=list)  # (module, attribute, axis)
    batch_norms: dict[str, str] = field(default_factory=dict)  # by module: the batch norm that reads its output
    uses: Counter[str] = field(default_factory=Counter)  # by module: the number of operators that read its output
    readers: list[tuple[dict[str, str], Counter[str]]] = field(
        default_factory=list
    )  # the two fields above, for each pass
    visits: dict[int, Counter[CallSite]] = field(default_factory=dict)  # by pass: the number of visits at each site
    met: set[str] = field(default_factory=set)  # parameters and buffers that an operator has read
    seen: dict[str, dict[int, Axis]] = field(default_factory=dict)  # by module: the axes that its code has seen, by id
    uncounted: dict[str, None] = field(default_factory=dict)
    roots: dict[str, Axes] = field(
        default_factory=dict
    )  # axes of parameters and buffers, each tensor by its first name
    _axes: ByTensor[Axes] = field(default_factory=by_tensor)
    _names: ByTensor[list[str]] = field(default_factory=by_tensor)  # names of parameters, also of transposed ones
    _sources: ByTensor[tuple[str, ...]] = field(default_factory=by_tensor)  # parameters that a tensor is computed from
    _places: ByTensor[Axis] = field(default_factory=by_tensor)  # for integers: the axis whose positions they denote
    _told: ByTensor[list[tuple[Axis, str]]] = field(
        default_factory=by_tensor
    )  # for integers: as above, with the operator that returned them
    _factors: ByTensor[tuple[str, ...]] = field(default_factory=by_tensor)  # parameters that activations multiplied
    _makers: ByTensor[str] = field(default_factory=by_tensor)  # the operator that computed an activation
    _producers: ByTensor[str] = field(default_factory=by_tensor)  # module whose weight produced it

    def register(self, model: nn.Module) -> None:
        """Gives every parameter and buffer new, unrelated axes."""
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._names.setdefault(parameter, []).append(name)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self._names.setdefault(tensor, [name])
            self._sources[tensor] = (name,)
            self.roots[name] = tuple(Atom(n) if n > 1 else one() for n in tensor.shape)
            self.record(tensor, self.roots[name])

    def begin(self, run: int) -> None:
        """Starts another forward pass: readers of weights' outputs are counted anew."""
        self.run, self.batch_norms, self.uses = run, {}, Counter()
        self.readers.append((self.batch_norms, self.uses))

    def sole_norms(self) -> dict[str, str]:
        """For each module whose output goes into one batch norm and nowhere else in all passes, that batch norm."""
        found: dict[str, set[str | None]] = {}
        for norms, uses in self.readers:
            for module, count in uses.items():
                found.setdefault(module, set()).add(norms.get(module) if count == 1 else None)
        sole = {module: next(iter(norms)) for module, norms in found.items() if len(norms) == 1}
        return {module: norm for module, norm in sole.items() if norm is not None}

    def knows(self, tensor: torch.Tensor) -> bool:
        return tensor in self._axes

    def axes(self, tensor: torch.Tensor) -> Axes:
        """The axes of a tensor; an unknown tensor is a constant and frozen."""
        if not self.knows(tensor):
            self.record(tensor, fresh(tensor.shape, "constant tensor"))
            self._sources.setdefault(tensor, ())
        return self._axes[tensor]

    def constant(self, tensor: torch.Tensor, reason: str, name: str = "") -> None:
        """Freezes a tensor for a reason; with a name, `met` tells whether an operator reads it."""
        self.record(tensor, fresh(tensor.shape, reason))
        self._sources[tensor] = ()
        if name:
            self._names[tensor] = [name]

    def same_as(self, tensor: torch.Tensor, name: str, axes: Axes) -> None:
        """Records that a tensor has the entries of a registered one."""
        self.record(tensor, axes)
        self._sources[tensor] = (name,)

    def record(self, tensor: torch.Tensor, axes: Axes) -> None:
        self._axes[tensor] = axes

    def see(self, module: str, tensors: Iterable[torch.Tensor]) -> None:
        """Records that the code of a module has seen these tensors."""
        known = self.seen.setdefault(module, {})
        for tensor in tensors:
            if self.knows(tensor):
                known.update((id(axis), axis) for axis in self.axes(tensor) if size(axis) > 1)

    def freeze(self, tree: object, reason: str) -> None:
        """Freezes every axis of every tensor in a tree of arguments or outputs."""
        for tensor in tensors_of(tree):
            for axis in self.axes(tensor):
                freeze(axis, reason)

    def read(self, call: OperatorCall, argument: str, dim: int, axis: Axis) -> None:
        """Records that the operator contracts an argument along a dimension: removed positions must not count."""
        self.readings.append(Reading(call.site, call.visit, argument, dim, axis, self.run))

    def reduce(self, call: OperatorCall, argument: str, dim: int, axis: Axis) -> None:
        """Records that the operator reduces or normalises an argument along a dimension, over the kept positions."""
        self.read(call, argument, dim, axis)
        self.normalised.append(axis)

    def alias(self, tensor: torch.Tensor, source: torch.Tensor) -> None:
        """Records that a rearranged parameter is still that parameter."""
        if source in self._names:
            self._names[tensor] = self._names[source]

    def owner(self, weight: torch.Tensor | None) -> str | None:
        """The (first) module that owns a parameter or its transpose; None for any other tensor."""
        if weight is None or weight not in self._names:
            return None
        return self._names[weight][0].rpartition(".")[0]

    def is_weight(self, tensor: torch.Tensor | None) -> bool:
        """Whether a tensor is a parameter or computed from parameters and constants alone."""
        return tensor is not None and bool(self._sources.get(tensor))

    def is_stack(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is computed from parameters that hold one matrix for each of several experts."""
        sources = self._sources.get(tensor, ())
        return bool(sources) and all(len(self.roots[name]) > 2 for name in sources)

    def is_activation(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is computed from the model's inputs."""
        return self.knows(tensor) and tensor not in self._sources

    def mark(self, weight: torch.Tensor | None, role: Role, dim: int) -> None:
        """Records the role of a parameter, or of a tensor computed from parameters alone, along one dimension."""
        if weight is not None and self.is_weight(weight):
            self.marks.append(RoleMark(self._sources[weight], role, self.axes(weight)[dim]))

    def mark_computed(self, call: OperatorCall, weight: torch.Tensor, dims: tuple[int, int]) -> None:
        """Records a weight that is computed from activations, with its (contracted, made) dimensions.

        Parameters that were multiplied by activations produce and contract positions in its place.
        """
        maker = self._makers.get(weight, "the caller of the model")
        why = f"the weight of {call.where} is computed from activations by {maker}; no weight produces these positions"
        contracted, made = (self.axes(weight)[dim] for dim in dims)
        self.computed += [(contracted, why), (made, why)]
        if names := self._factors.get(weight, ()):
            self.marks += [RoleMark(names, "in", contracted), RoleMark(names, "out", made)]

    def keep_sizes(self, call: OperatorCall, weight: torch.Tensor | None, **axes: Axis) -> None:
        """Records which attributes of the running module, and of the weight's owners, hold the size of which axis."""
        names = self._names.get(weight, []) if weight is not None else []
        for module in dict.fromkeys([call.module, *(name.rpartition(".")[0] for name in names)]):
            self.module_sizes += [(module, attribute, axis) for attribute, axis in axes.items()]

    def made_by(self, tensor: torch.Tensor, weight: torch.Tensor) -> None:
        module = self.owner(weight)
        if module is not None:
            self._producers[tensor] = module

    def note_sources(self, call: OperatorCall) -> None:
        """Records the parameters that a tensor is computed from, if it depends on parameters and constants alone."""
        inputs = call.tensors
        self.met.update(name for tensor in inputs if tensor in self._names for name in self._names[tensor])
        if all(tensor in self._sources or not self.knows(tensor) for tensor in inputs):
            names = dict.fromkeys(name for tensor in inputs for name in self._sources.get(tensor, ()))
            for output in call.outputs:
                self._sources.setdefault(output, tuple(names))
        else:
            for output in call.outputs:  # before this in-place write it may have depended on weights alone
                self._sources.pop(output, None)
            self._note_factors(call)

    def _note_factors(self, call: OperatorCall) -> None:
        """Records, for a tensor computed from activations, the operator and the weights that were multiplied in.

        Only weights with rows and columns count, such as kernels; rearranging and adding preserves them.
        """
        operator = call.operator.removesuffix("_")
        same = operator in REARRANGING
        maker = next((self._makers[t] for t in call.tensors if same and t in self._makers), call.where)
        for output in call.outputs:
            self._makers[output] = maker
        if operator not in MIXING and not same:
            return
        names = {name: None for tensor in call.tensors for name in self._factors.get(tensor, ())}
        if operator in ("mul", "div"):
            pure = [t for t in call.tensors if self.is_weight(t) and sum(n > 1 for n in t.shape) > 1]
            names |= {name: None for tensor in pure for name in self._sources[tensor]}
        for output in call.outputs if names else ():
            self._factors[output] = tuple(names)

    def name_places(self, tensor: torch.Tensor, axis: Axis) -> None:
        """Records that the values of an integer tensor are positions along an axis."""
        self._places[tensor] = axis

    def places(self, tensor: torch.Tensor) -> Axis | None:
        return self._places.get(tensor)

    def tell_places(self, call: OperatorCall, tensor: torch.Tensor, axis: Axis) -> None:
        """Records that an integer tensor's values are positions along an axis, which is frozen once they are read."""
        self._told.setdefault(tensor, []).append((axis, call.where))

    def read_places(self, tensors: Sequence[torch.Tensor], reader: str) -> None:
        """Freezes the axes whose positions the tensors convey to the reader."""
        for tensor in tensors:
            for axis, where in self._told.get(tensor, ()):
                freeze(axis, f"{reader} gets the indices that {where} returns")

    def note_places(self, call: OperatorCall) -> None:
        """Propagates the axis of integers that are rearranged, selected or converted."""
        if call.operator in REARRANGING and (axis := self.places(call.tensors[0])) is not None:
            self.name_places(call.outputs[0], axis)

    def note_uses(self, call: OperatorCall) -> None:
        """Counts readers of weights' outputs; an output written to in place is none any more."""
        self.read_places(call.tensors, call.where)
        for tensor in call.tensors:
            if tensor in self._producers:
                self.uses[self._producers[tensor]] += 1
        for output in call.outputs:
            self._producers.pop(output, None)

    def note_outputs(self, tree: object) -> None:
        """Freezes the model's outputs; its caller counts as one more reader."""
        self.read_places(tensors_of(tree), "the caller of the model")
        self.freeze(tree, "model output")
        for tensor in tensors_of(tree):
            if tensor in self._producers:
                self.uses[self._producers[tensor]] += 1

    def maker(self, tensor: torch.Tensor) -> str | None:
        """The module whose weight made exactly this tensor; None if there is none."""
        return self._producers.get(tensor)
