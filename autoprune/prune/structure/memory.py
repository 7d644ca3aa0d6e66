"""Tensors that share memory with others or are not registered: how the trace treats them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from autoprune.prune.modules.plain import plain_tensors
from autoprune.prune.modules.ties import Tie
from autoprune.prune.structure.axes import freeze, one, unify
from autoprune.prune.structure.recorder import Recorder


def relate_ties(recorder: Recorder, model: nn.Module, ties: Mapping[str, Tie]) -> None:
    """Gives tied tensors the same axes; parts of a registered tensor are frozen. `model` is the traced copy."""
    plain = plain_tensors(model)
    for name, tie in ties.items():
        where = f"the memory that {tie.base!r} and {name!r} share"
        if tie.base not in recorder.roots:
            continue
        base = recorder.roots[tie.base]
        if name in plain and tie.dims is not None:
            recorder.same_as(plain[name], tie.base, tuple(one() if dim is None else base[dim] for dim in tie.dims))
        elif name in plain:
            recorder.constant(plain[name], f"{name} is a part of the memory of {tie.base!r}", name)
        elif tie.dims is not None:
            for axis, dim in zip(recorder.roots[name], tie.dims, strict=True):
                if dim is not None:
                    unify(axis, base[dim], where)
        else:
            _freeze_parts(recorder, tie.base, name)


def freeze_read_parts(recorder: Recorder, ties: Mapping[str, Tie]) -> None:
    """Freezes tensors that the forward reads through an unregistered view, which slicing would detach."""
    for name, tie in ties.items():
        if tie.dims is None and name in recorder.met and name not in recorder.roots and tie.base in recorder.roots:
            _freeze_parts(recorder, tie.base, name)


def _freeze_parts(recorder: Recorder, base: str, name: str) -> None:
    axes = [*recorder.roots[base], *recorder.roots.get(name, ())]
    for axis in axes:
        freeze(
            axis,
            f"{name!r} is a part of the memory of {base!r}: give it memory of its own, as in x.data = x.data.clone()",
        )


def freeze_plain(recorder: Recorder, model: nn.Module) -> None:
    """Makes every unregistered tensor a constant; the reason says how to register it."""
    for path, tensor in plain_tensors(model).items():
        if not recorder.knows(tensor):
            module, _, attribute = path.rpartition(".")
            owner = f"module {module!r}" if module else "the top module"
            recorder.constant(
                tensor,
                f"{attribute} of {owner} is a tensor that is not registered: make it a buffer (register_buffer) and it "
                "is sliced",
            )
