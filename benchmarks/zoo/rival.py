"""What torch-pruning does with one model: `python -m zoo.rival MODEL FILE` writes a JSON line a stage.

Its default call: BasePruner, local, half of everything, L2 norm, layers that make the outputs ignored, nothing set by
hand for a model. Where every operator of the network works channel by channel, what it made is compared with the
original in which the consumers' weights for everything it removed are zero; elsewhere that comparison means nothing.
"""

from __future__ import annotations

import copy
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from zoo.models import Entry, Inputs, run
from zoo.pieces import Row, one_line, parameters, report

LIMIT_S = 60
SILENT = 0.95  # more than this share of the parameters left is not half
TOLERANCE = 1e-4
CHANNELWISE = """
convolution native_batch_norm relu leaky_relu hardtanh hardswish hardsigmoid silu gelu mish sigmoid add sub mul div
max_pool2d_with_indices avg_pool2d mean _adaptive_avg_pool2d upsample_bilinear2d upsample_nearest2d constant_pad_nd
reflection_pad2d addmm mm view _unsafe_view permute transpose t clone expand cat slice split split_with_sizes select
unsqueeze squeeze detach alias empty
"""
_Zeroed = dict[str, set[int]]  # names of consumers: input positions, of the original


class NoAnswer(BaseException):
    """The time is up. No Exception, so that nothing on the way takes it for a failure of its own."""


def measure(entry: Entry) -> Iterator[Row]:
    model, inputs = entry.make()
    params, macs = parameters(model), count_macs(model, inputs)
    original, shape = copy.deepcopy(model), first(model, inputs).shape
    yield {"stage": "prune"}
    start = time.perf_counter()
    try:
        with limited(LIMIT_S):
            zeroed = prune(model, inputs, entry.classes)
            pruned = first(model, inputs)
    except NoAnswer:
        yield {"tp_result": f"no answer in {LIMIT_S} s", "tp_s": LIMIT_S}
        return
    except Exception as error:  # how it fails is what is measured
        yield {"tp_result": f"fails: {one_line(error)}", "tp_s": time.perf_counter() - start}
        return
    row: Row = {"tp_s": time.perf_counter() - start, "tp_checked": "no"}
    if pruned.shape != shape:
        yield {**row, "tp_result": f"fails: output of shape {tuple(pruned.shape)}, was {tuple(shape)}"}
        return
    row["tp_kept"] = count_macs(model, inputs) / macs
    result = "silent" if parameters(model) > SILENT * params else "works"
    yield {**row, "tp_result": result}
    if works_channelwise(original, inputs):
        far = difference(original, model, zeroed, inputs)
        yield {"tp_checked": "yes"} | ({} if far <= TOLERANCE else {"tp_result": f"wrong: differs by {far:.2g}"})


class limited:
    """Raises NoAnswer in the block after so many seconds of this process's own time, however busy the machine is."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        def stop(*_: object) -> None:
            raise NoAnswer

        signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, self.seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)


def prune(model: nn.Module, inputs: Inputs, classes: int) -> _Zeroed:
    """Prunes the model in place; what it removed from the inputs of every consumer."""
    pruner = tp.pruner.BasePruner(
        model,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        global_pruning=False,
        ignored_layers=[module for module in model.modules() if is_last(module, classes)],
        output_transform=lambda output: [leaf for leaf in tensors(output) if leaf.requires_grad],
    )
    names = {module: name for name, module in model.named_modules()}
    alive: dict[str, list[int]] = {}
    zeroed: _Zeroed = {}
    for group in pruner.step(interactive=True):
        for dependency, positions in group:
            module = dependency.target.module
            if dependency.handler.__name__ == "prune_in_channels" and isinstance(module, nn.Linear | tp.ops.TORCH_CONV):
                name, gone = names[module], set(positions)
                left = alive.setdefault(name, list(range(inputs_of(module))))
                zeroed.setdefault(name, set()).update(left[index] for index in gone)
                alive[name] = [original for index, original in enumerate(left) if index not in gone]
        group.prune()
    return zeroed


def is_last(module: nn.Module, classes: int) -> bool:
    return isinstance(module, nn.Linear | tp.ops.TORCH_CONV) and classes in (
        getattr(module, "out_features", None),
        getattr(module, "out_channels", None),
    )


def inputs_of(module: Any) -> int:
    return int(module.in_features if isinstance(module, nn.Linear) else module.in_channels)


def tensors(output: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def first(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    with torch.no_grad():
        return tensors(run(model, inputs))[0]


def count_macs(model: nn.Module, inputs: Inputs) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(model, inputs)
    return counter.get_total_flops() / 2


class _Operators(TorchDispatchMode):
    """Notes whether all operators run so far work channel by channel."""

    channelwise = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").removesuffix("_")  # in place or not
        across = name == "mean" and not {axis % args[0].dim() for axis in args[1]} <= {2, 3}
        estimates = name == "native_batch_norm" and args[5]  # weights standardised with a batch norm in training
        self.channelwise &= name in CHANNELWISE.split() and not across and not estimates
        return func(*args, **(kwargs or {}))


def works_channelwise(model: nn.Module, inputs: Inputs) -> bool:
    """Whether unread channels can be removed without effect: there is no norm, softmax or mean over channels."""
    with _Operators() as operators, torch.no_grad():
        run(model, inputs)
    return operators.channelwise and all(
        len(module.kernel_size) > 1 for module in model.modules() if isinstance(module, tp.ops.TORCH_CONV)
    )


def difference(original: nn.Module, pruned: nn.Module, zeroed: _Zeroed, inputs: Inputs) -> float:
    """Largest difference of the outputs over their largest value, in float64."""
    reference = copy.deepcopy(original).double()
    modules = dict(reference.named_modules())
    for name, positions in zeroed.items():
        zero_inputs(modules[name], sorted(positions))
    inputs = tree_map_only(torch.Tensor, lambda x: x.double() if x.is_floating_point() else x, inputs)
    expected, got = first(reference, inputs), first(pruned.double(), inputs)
    return float((expected - got).abs().max() / expected.abs().max())


@torch.no_grad()
def zero_inputs(module: Any, positions: list[int]) -> None:
    """Zeroes a convolution's or linear's weights for some of its inputs."""
    weight = module.weight
    if getattr(module, "transposed", False):
        weight[positions] = 0
        return
    groups = getattr(module, "groups", 1)
    grouped = weight.view(groups, weight.shape[0] // groups, *weight.shape[1:])
    for position in positions:
        grouped[position // weight.shape[1], :, position % weight.shape[1]] = 0


if __name__ == "__main__":
    report(measure, sys.argv[1], Path(sys.argv[2]), "")
