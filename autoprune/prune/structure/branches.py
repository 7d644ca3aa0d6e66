"""Branches: operands of additions that can be removed as a whole, found in the data flow through each module.

While a module runs, the operators and the modules that it calls are the nodes of a graph. Everything that only serves
one operand of an addition is removed with that operand, if a tensor that enters it has the operand's shape: then zeros
can pass through the remaining parts without parameters. The trials check that they arrive as zeros (verify.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoprune.prune.modules.names import numbered
from autoprune.prune.modules.skip import within
from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.structure.axes import leaves, symbolic_size
from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder
from autoprune.prune.structure.structure import Addition, Branch

ADDITION_OPERATORS = ("add", "add_")
SHAPING = frozenset(
    (
        *("view", "_unsafe_view", "expand", "repeat", "as_strided", "slice", "select", "narrow", "unbind"),
        *("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "constant_pad_nd", "cat", "stack"),
    )
)


@dataclass(eq=False)
class Node:
    """One call of an operator or of a named module, between tokens: the versions of tensors that it reads and makes.

    `length` is that of the tuple a module returned, 0 for a bare tensor, None for anything else.
    """

    inputs: list[int]
    outputs: list[int] = field(default_factory=list)
    call: OperatorCall | None = None
    module: str = ""
    length: int | None = None
    contracts: bool = False


@dataclass(eq=False)
class CallFrame:
    """One call of a module: its node in the enclosing frame, and the graph of its own calls.

    A token is an index into `tensors`; an in-place operator makes a new one for the same tensor.
    """

    node: Node
    nodes: list[Node] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)
    newest: dict[int, int] = field(default_factory=dict)  # by id of the tensor, which is kept alive here

    def read(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        return [self.newest[id(t)] if id(t) in self.newest else self._add(t) for t in tensors]

    def made(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        return [self._add(tensor) for tensor in tensors]

    def _add(self, tensor: torch.Tensor) -> int:
        self.newest[id(tensor)] = len(self.tensors)
        self.tensors.append(tensor)
        return len(self.tensors) - 1


@dataclass(frozen=True)
class Operand:
    """An operand of an addition, with all nodes that serve nothing else.

    `axes` are the operand's, `entering` those of each incoming activation of its shape, `shaped` those of the outputs
    of operators that take sizes or numbers of pieces.
    """

    call: OperatorCall
    argument: str
    nodes: Sequence[Node]
    axes: Axes
    entering: Sequence[Axes]
    shaped: Sequence[Axes]


class Flow:
    """Follows a forward pass frame by frame and collects the operands of its additions."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.run = recorder, recorder.run
        self.operands: list[Operand] = []
        self.calls: Counter[str] = Counter()  # of modules
        self._frames = [CallFrame(Node([]))]

    def enter(self, module: str, inputs: Sequence[torch.Tensor]) -> None:
        self.calls[module] += 1
        self._frames.append(CallFrame(Node(self._frames[-1].read(inputs), module=module)))

    def leave(self, output: Any) -> None:
        frame = self._frames.pop()
        around, node, returned = self._frames[-1], frame.node, tensors_of(output)
        self.operands += _operands(frame, set(frame.read(returned)), self.recorder)
        node.outputs, node.length = around.made(returned), _length(output)
        node.contracts = any(inner.contracts for inner in frame.nodes)
        around.nodes.append(node)

    def operator(self, call: OperatorCall, *, contracts: bool) -> None:
        frame = self._frames[-1]
        inputs = frame.read(call.tensors)
        frame.nodes.append(Node(inputs, frame.made(call.outputs), call, contracts=contracts))


def _length(output: Any) -> int | None:
    if isinstance(output, torch.Tensor):
        return 0
    listed = type(output) in (tuple, list) and output and isinstance(output[0], torch.Tensor)
    return len(output) if listed else None


def _operands(frame: CallFrame, leaving: set[int], recorder: Recorder) -> list[Operand]:
    """The operands of a frame's additions of two activations of equal shape that the frame itself makes."""
    readers = _readers(frame)
    found = []
    for place, node in enumerate(frame.nodes):
        call = node.call
        if call is None or not _adds_activations(call, node, frame, recorder):
            continue
        for argument, token in zip(("self", "other"), node.inputs, strict=True):
            inside = _serving(frame.nodes[:place], token, readers, leaving) if len(readers[token]) == 1 else []
            if any(inner.module and inner.contracts for inner in inside) and _vanishes(token, inside, frame, recorder):
                found.append(_operand(call, argument, token, inside, frame, recorder))
    return found


def _readers(frame: CallFrame) -> dict[int, list[Node]]:
    """The nodes of a frame that read each token."""
    readers: dict[int, list[Node]] = {}
    for node in frame.nodes:
        for token in node.inputs:
            readers.setdefault(token, []).append(node)
    return readers


def _adds_activations(call: OperatorCall, node: Node, frame: CallFrame, recorder: Recorder) -> bool:
    """Whether a call adds two activations of equal shape."""
    if call.operator not in ADDITION_OPERATORS or len(node.inputs) != 2:
        return False
    left, right = (frame.tensors[token] for token in node.inputs)
    return left.shape == right.shape and all(map(recorder.is_activation, (left, right)))


def _serving(
    nodes: Sequence[Node], operand: int, readers: Mapping[int, Sequence[Node]], leaving: set[int]
) -> list[Node]:
    """The nodes, in order, all of whose outputs lead to the operand or to each other."""
    inside: dict[Node, None] = {}
    for node in reversed(nodes):
        read = _readers_besides(operand, node, readers)
        serves = operand in node.outputs or bool(read)
        if serves and not leaving.intersection(node.outputs) and all(reader in inside for reader in read):
            inside[node] = None
    return list(reversed(inside))


def _readers_besides(operand: int, node: Node, readers: Mapping[int, Sequence[Node]]) -> list[Node]:
    """The nodes that read outputs of a node other than the operand."""
    return [reader for token in node.outputs if token != operand for reader in readers.get(token, ())]


def _vanishes(operand: int, inside: Sequence[Node], frame: CallFrame, recorder: Recorder) -> bool:
    """Whether the operand is zero if every module in it returns zeros, as far as the graph tells.

    A sum is zero if all of its operands are; other operators, and modules without parameters, if one of them is.
    """
    zero: set[int] = set()
    for node in inside:
        given = [token in zero for token in node.inputs if recorder.is_activation(frame.tensors[token])]
        if node.contracts or (all(given) if _joins(node) else any(given)):
            zero.update(node.outputs)
    return operand in zero


def _joins(node: Node) -> bool:
    """Whether a node's output is zero only if all of its inputs are."""
    return node.call is not None and node.call.operator in (*ADDITION_OPERATORS, "sub", "sub_", "cat")


def _operand(
    call: OperatorCall, argument: str, token: int, inside: Sequence[Node], frame: CallFrame, recorder: Recorder
) -> Operand:
    tensor, made = frame.tensors[token], {output for node in inside for output in node.outputs}
    outer = dict.fromkeys(t for node in inside for t in node.inputs if t not in made)
    entering = [frame.tensors[t] for t in outer if frame.tensors[t].shape == tensor.shape]
    axes = [recorder.axes(t) for t in entering if recorder.is_activation(t)]
    cut = [node for node in inside if node.call is not None and node.call.operator in SHAPING]
    shaped = [recorder.axes(frame.tensors[t]) for node in cut for t in node.outputs]
    return Operand(call, argument, inside, recorder.axes(tensor), axes, shaped)


def find_branches(model: nn.Module, flows: Sequence[Flow]) -> dict[str, Branch]:
    """The operands that can be removed with their modules, by the name of their unit.

    They must form such an operand in every pass that runs any of these modules. Among equivalent ones, such as a sum of
    two branches and the two branches, the smaller ones are chosen.
    """
    candidates = [_candidates(model, flow) for flow in flows]
    found: list[tuple[Branch, frozenset[str]]] = []
    for key in dict.fromkeys(key for own in candidates for key in own):
        if _in_every_pass(key, candidates, flows):
            operands = [own[key] for own in candidates if key in own]
            found.append((Branch(dict(key[0]), tuple(addition for addition, _ in operands)), operands[0][1]))
    kept = [branch for branch, core in found if core != frozenset().union(*(c for _, c in found if c < core))]
    return dict(zip(numbered([f"{[*branch.modules][-1]}/branch" for branch in kept]), kept, strict=True))


BranchKey = tuple[tuple[tuple[str, int], ...], int]  # modules with the length of their result; index of the operand
Candidates = Mapping[BranchKey, tuple[Addition, frozenset[str]]]


def _in_every_pass(key: BranchKey, candidates: Sequence[Candidates], flows: Sequence[Flow]) -> bool:
    """Whether the modules form this operand in every pass that runs any of them."""
    modules = [module for module, _ in key[0]]
    ran = [any(flow.calls[module] for module in modules) for flow in flows]
    return all(key in own for own, runs in zip(candidates, ran, strict=True) if runs)


def _candidates(model: nn.Module, flow: Flow) -> Candidates:
    """The removable operands of one pass, each with those of its modules that contract."""
    tensors = _names_by_tensor(model)
    owned = {name for names in tensors for name in names}
    found: dict[BranchKey, tuple[Addition, frozenset[str]]] = {}
    for operand in flow.operands:
        modules = [n for n in operand.nodes if any(within(name, [n.module]) for name in owned if n.module)]
        if _removable(operand, modules, flow.calls) and _closed([n.module for n in modules], tensors):
            lengths = tuple((node.module, node.length or 0) for node in modules)
            addition = _addition(flow, operand)
            core = frozenset(node.module for node in modules if node.contracts)
            found[lengths, sum(known == lengths for known, _ in found)] = addition, core
    return found


def _addition(flow: Flow, operand: Operand) -> Addition:
    call = operand.call
    return Addition(call.site, call.visit, flow.recorder.visits[flow.run][call.site], operand.argument, flow.run)


def _removable(operand: Operand, modules: Sequence[Node], calls: Mapping[str, int]) -> bool:
    """Whether zeros of the operand's shape can replace it, and all contractions in it are removed with the modules."""
    alone = all(calls[node.module] == 1 and node.length is not None for node in modules)
    contractions = [node for node in operand.nodes if node.contracts]
    return _fits(operand) and not _cuts(operand) and alone and all(node in modules for node in contractions)


def _fits(operand: Operand) -> bool:
    """Whether an activation that enters the operand has its shape."""
    sizes = [symbolic_size(axis) for axis in operand.axes]
    return any([symbolic_size(axis) for axis in axes] == sizes for axes in operand.entering)


def _cuts(operand: Operand) -> bool:
    """Whether the remaining code splits by other units' sizes, which the zeros would not have."""
    own = {atom for axis in operand.axes for atom in leaves(axis)}
    shaped = [atom for axes in operand.shaped for axis in axes for atom in leaves(axis)]
    return any(not atom.frozen and atom not in own for atom in shaped)


def _names_by_tensor(model: nn.Module) -> list[list[str]]:
    """All names of each parameter and buffer."""
    found: dict[int, list[str]] = {}
    both = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    for name, tensor in (pair for named in both for pair in named):
        found.setdefault(id(tensor), []).append(name)
    return list(found.values())


def _closed(modules: Sequence[str], tensors: Sequence[Sequence[str]]) -> bool:
    """Whether the modules share no parameter or buffer with modules outside."""
    inside = [[within(name, modules) for name in names] for names in tensors]
    return all(all(flags) for flags in inside if any(flags))
