"""Finds the structure of a network by running it and relating the axes of every operator's tensors.

A copy runs unmodified on the example inputs, once for each call in each mode: control flow, hooks and custom modules
need no capture. All passes are related in one structure. Meanwhile the integers that its modules keep, and those it
reads from shapes, are `Size`s (sizes.py). An operator without a rule freezes every axis that it touches, with operator
and module as the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.adapting import adapt
from autoprune.prune.modules.attributes import numbers, put
from autoprune.prune.modules.borrowed import evaluating, without_tf32
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.ties import find_ties
from autoprune.prune.modules.wrappers import uncompiled
from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.passes.examples import Example, Examples, as_examples
from autoprune.prune.passes.planned import plan_passes
from autoprune.prune.passes.site import Pass
from autoprune.prune.passes.train_mode import deterministic_training
from autoprune.prune.passes.watch import Execute, OperatorWatch, line_of_model
from autoprune.prune.structure.adapted import check_adapters
from autoprune.prune.structure.assemble import assemble
from autoprune.prune.structure.axes import freeze, fresh
from autoprune.prune.structure.branches import Flow, find_branches
from autoprune.prune.structure.memory import freeze_plain, freeze_read_parts, relate_ties
from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder
from autoprune.prune.structure.rules import find_rule, find_sized
from autoprune.prune.structure.structure import Structure
from autoprune.prune.structure.unmet import find_unmet, freeze_for


def trace(model: nn.Module, example_inputs: Examples) -> Structure:
    """The structure of a network as its calls show it, not yet verified. Arguments and errors: find_structure."""
    if not any(parameter.numel() for parameter in model.parameters()):
        raise UnsupportedModel(
            f"expected a network with parameters, got a {type(model).__name__} without any. Pass the trained module; "
            "one that was quantised has buffers instead, so prune the float network first and quantise the small one."
        )
    examples = as_examples(example_inputs)
    check_adapters(model, examples)
    passes, notes = plan_passes(model, examples)
    own = [run for run, each in enumerate(passes) if each.traced == run]
    probe = copy_model(model, share=True)
    adapted = adapt(probe)
    recorder = Recorder()
    recorder.register(probe)
    ties = find_ties(model)
    relate_ties(recorder, probe, ties)
    freeze_plain(recorder, probe)
    _freeze_fixed(recorder, probe)
    _mark_numbers(recorder, probe)
    flows = _trace_passes(recorder, probe, examples, {run: passes[run] for run in own})
    freeze_read_parts(recorder, ties)
    unmet = find_unmet(model, recorder)
    freeze_for(model, recorder, unmet)
    structure = assemble(model, recorder, adapted, find_branches(probe, flows))
    return replace(structure, passes=passes, unmet=unmet, notes=(*structure.notes, *notes))


def _trace_passes(
    recorder: Recorder, probe: nn.Module, examples: Sequence[Example], passes: Mapping[int, Pass]
) -> list[Flow]:
    """Runs the passes, by index, and returns the data flow of each. Costs are those of the first one."""
    by_name = {example.name: example for example in examples}
    flows, counted = [], 0
    for run, each in passes.items():
        recorder.begin(run)
        flows.append(_trace_pass(recorder, probe, by_name[each.example], train=each.train))
        counted = counted or len(recorder.contractions)
    del recorder.contractions[counted:]
    recorder.sizes.settle()
    return flows


def _trace_pass(recorder: Recorder, probe: nn.Module, example: Example, *, train: bool) -> Flow:
    tracing = _Trace(recorder)
    inputs = example.inputs()
    for tensor in tensors_of(inputs):
        recorder.record(tensor, fresh(tensor.shape, "model input"))
    mode = deterministic_training(probe) if train else evaluating(probe)
    with mode, torch.no_grad(), without_tf32(), uncompiled(), tracing.watching(probe):
        output = example.run(probe, inputs, tracing)
    recorder.note_outputs(output)
    recorder.visits[recorder.run] = tracing.visits
    return tracing.flow


def _freeze_fixed(recorder: Recorder, model: nn.Module) -> None:
    """Freezes tensors that TorchScript copies, and sizes that must stay above another one."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            for tensor in (*module.parameters(), *module.buffers()):
                recorder.freeze(tensor, f"kept by the TorchScript module {name!r}: prune first, then script")
        elif isinstance(module, nn.RNNBase) and module.proj_size:
            projection = module.get_parameter("weight_hr_l0")
            freeze(recorder.axes(projection)[1], f"{name!r} must have more hidden units than projections")


def _mark_numbers(recorder: Recorder, model: nn.Module) -> None:
    """Replaces every integer that a module keeps by a Size, in the traced copy."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for path, value in numbers(module):
            put(module, path, recorder.sizes.keep((name, path), value))


class _Trace(OperatorWatch):
    """Passes every operator call to its rule, and relates every size that a forward computes to its axis.

    The flow receives the calls of operators and modules.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.flow = Flow(recorder)

    def entered(self, name: str, inputs: Any) -> None:
        given = tensors_of(inputs)
        self._see_from(self.modules[-1], name, given)
        super().entered(name, inputs)
        self.flow.enter(name, given)

    def left(self, output: Any) -> None:
        name = self.modules[-1]
        super().left(output)
        self._see_from(self.modules[-1], name, tensors_of(output))
        self.flow.leave(output)

    def _see_from(self, outer: str, inner: str, tensors: Sequence[torch.Tensor]) -> None:
        """Records that inputs and outputs of a module are seen by it and by its caller."""
        self.recorder.see(outer, tensors)
        self.recorder.see(inner, tensors)

    def operator(self, name: str, overload: Any, arguments: dict[str, Any], execute: Execute) -> Any:
        site = self.visit(name, arguments)
        output = execute(arguments)
        call = OperatorCall(name, arguments, output, site.module, site, self.visits[site], site.line)
        self.recorder.note_sources(call)
        self.recorder.note_uses(call)
        before = len(self.recorder.contractions)
        self._record(call, self._related(call, overload))
        self.recorder.note_places(call)
        self.recorder.see(call.module, [*call.tensors, *call.outputs])
        self.flow.operator(call, contracts=len(self.recorder.contractions) > before)
        call.release()
        return output

    def function(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = function(*args, **kwargs)
        name = getattr(function, "__name__", "")
        sized = find_sized(function)
        if sized is None:
            return output
        call = OperatorCall(name, {}, output, self.modules[-1], line=line_of_model())
        try:
            return sized(self.recorder, call, args, kwargs)
        except Exception as error:  # as below
            self.recorder.freeze(
                output, f"the sizes given to {call.where} say nothing: {type(error).__name__}: {error}"
            )
            return output

    def _related(self, call: OperatorCall, overload: Any) -> Axes | list[Axes] | None:
        """The axes of the outputs by the operator's rule; without a working rule everything it touches is frozen."""
        rule = find_rule(call.operator, overload)
        if rule is not None:
            try:
                return rule(self.recorder, call)
            except Exception as error:  # an unknown form of an operator must not end the analysis
                why = f"the rule for {call.where} failed: {type(error).__name__}: {error}"
        else:
            why = f"no rule for {call.where}"
        if call.tensors:  # a tensor created without inputs has nothing to freeze
            self.recorder.uncounted[call.operator] = None
            self.recorder.freeze(call.tensors, why)
        return None

    def _record(self, call: OperatorCall, axes: Axes | list[Axes] | None) -> None:
        made = [axes] if isinstance(axes, tuple) else axes or []
        for index, tensor in enumerate(call.outputs):
            if index < len(made):
                self.recorder.record(tensor, made[index])
            elif not self.recorder.knows(tensor):  # an in-place operator returns a known tensor
                self.recorder.record(tensor, fresh(tensor.shape, f"made by {call.where}"))
