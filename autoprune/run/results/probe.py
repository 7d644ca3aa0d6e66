"""A probe: a network's output on an input that every machine can reproduce.

It is part of an export, to detect weights that are loaded into a model with another forward. The input is made from the
raw integers of a PCG64 generator, whose stream is guaranteed to be stable, in the range of an example, without any of
its content. If possible the network runs in float64 on the CPU, so that outputs of different machines agree to many
more digits than those of different networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.prune.modules.borrowed import evaluating, seeded, without_tf32
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.passes.containers import tensors_of

ProbeDocument = Mapping[str, Any]

UNCHECKED = "unchecked"  # the key of the reason why there is no probe
KEPT_VALUES = 256  # number of values kept of each output tensor, evenly spaced
DOUBLED = 100_000_000  # networks with more parameters are not converted to float64
TOLERANCES = {"float64": 1e-5, "float32": 1e-3, "float16": 3e-2, "bfloat16": 1e-1}  # relative to the largest value


def make_probe(network: nn.Module, example: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Makes inputs like the example and records the network's output on them, as plain JSON.

    If there can be no probe, `unchecked` has the reason: the network does not run on such inputs, or its output is
    random, depends on earlier calls, or contains no tensor.
    """
    inputs = [_described(x) for x in example]
    reason = ""
    for precision in _precisions(network):
        try:
            outputs, again = (_outputs(network, inputs, precision, seed) for seed in (0, 1))
        except Exception as error:  # a user's forward may raise anything
            reason = reason or f"it does not run on random inputs: {type(error).__name__}: {error}"
            continue
        flaw = _flaw(outputs, again, precision)
        return {UNCHECKED: flaw} if flaw else {"inputs": inputs, "precision": precision, "outputs": outputs}
    return {UNCHECKED: reason}


def probe_difference(network: nn.Module, probe: ProbeDocument) -> str:
    """Describes how the network's outputs differ from the probe's; empty if they agree.

    Raises:
        KeyError, TypeError, ValueError: the probe is invalid.
    """
    precision, expected = probe["precision"], probe["outputs"]
    inputs = [_made(spec, seed) for seed, spec in enumerate(probe["inputs"])]
    tolerance = TOLERANCES[precision]
    try:
        found = _run(network, inputs, precision, 0)
    except Exception as error:  # the forward of another network may raise anything
        return f"it does not run on the probe's input: {type(error).__name__}: {error}"
    return _difference(expected, found, tolerance)


def _precisions(network: nn.Module) -> list[str]:
    """The precisions to try: float64, and the least precise dtype of the network's parameters."""
    tensors = [x for x in named_tensors(network).values() if x.is_floating_point()]
    names = {str(x.dtype).removeprefix("torch.") for x in tensors} & TOLERANCES.keys()
    own = max(names, key=lambda name: TOLERANCES[name], default="float32")
    return ["float64", own] if sum(x.numel() for x in tensors) <= DOUBLED and own != "float64" else [own]


def _described(example: torch.Tensor) -> dict[str, Any]:
    """The shape, dtype and range of an input: the example's mean and deviation, or the range of its integers."""
    values = example.detach().cpu().double()
    values = values[torch.isfinite(values)]
    low = high = 0.0
    if values.numel():
        low, high = values.min().item(), values.max().item()
    if example.is_floating_point() and values.numel():
        mean, half = values.mean().item(), math.sqrt(3) * values.std(correction=0).item()
        low, high = mean - half, mean + half
    return {
        "shape": list(example.shape),
        "dtype": str(example.dtype).removeprefix("torch."),
        "low": low,
        "high": high,
    }


def _made(spec: ProbeDocument, seed: int) -> torch.Tensor:
    """Makes the input of a description, with the same numbers on every machine."""
    shape, dtype = [int(n) for n in spec["shape"]], getattr(torch, spec["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"expected a number format, got {spec['dtype']!r}")
    low, high = float(spec["low"]), float(spec["high"])
    bits = np.random.PCG64(seed).random_raw(math.prod(shape))
    values: np.ndarray
    if dtype.is_floating_point:
        values = low + (high - low) * ((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)
    else:
        values = int(low) + (bits % np.uint64(int(high) - int(low) + 1)).astype(np.int64)
    return torch.from_numpy(np.asarray(values)).reshape(shape).to(dtype)


def _outputs(network: nn.Module, inputs: Sequence[ProbeDocument], precision: str, seed: int) -> list[dict[str, Any]]:
    made = [_made(spec, number) for number, spec in enumerate(inputs)]
    return [_sampled(x) for x in _run(network, made, precision, seed)]


def _run(network: nn.Module, inputs: Sequence[torch.Tensor], precision: str, seed: int) -> list[torch.Tensor]:
    """The output tensors of a copy in eval mode, so that the network's own state does not change."""
    copy = copy_model(network)
    place = _placing(copy, precision)
    with evaluating(copy), torch.no_grad(), without_tf32(), seeded(seed):
        return tensors_of(copy(*(place(x) for x in inputs)))


def _placing(network: nn.Module, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that moves an input to the network's device, which is the CPU for float64."""
    if precision == "float64":
        network.to("cpu", torch.float64)
        return lambda x: x.double() if x.is_floating_point() else x
    device = next((x.device for x in named_tensors(network).values()), torch.device("cpu"))
    return lambda x: x.to(device)


def _values(output: torch.Tensor) -> torch.Tensor:
    flat = torch.view_as_real(output) if output.is_complex() else output
    return flat.detach().cpu().double().flatten()


def _sampled(output: torch.Tensor) -> dict[str, Any]:
    values = _values(output)
    largest = values.abs().max().item() if values.numel() else 0.0
    return {"shape": list(output.shape), "largest": largest, "values": values[_places(len(values))].tolist()}


def _places(count: int) -> torch.Tensor:
    """The positions of the values that are kept of `count`."""
    kept = min(count, KEPT_VALUES)
    return torch.arange(kept) * count // max(kept, 1)


def _flaw(outputs: Sequence[ProbeDocument], again: Sequence[ProbeDocument], precision: str) -> str:
    """The reason why these outputs cannot be a probe; empty if they can."""
    if not outputs:
        return "its output has no tensor in it"
    if not all(math.isfinite(number) for one in outputs for number in (one["largest"], *one["values"])):
        return "its output on random inputs is not finite"
    if not any(one["largest"] for one in outputs):
        return "its output on random inputs is zero"
    pairs = zip(outputs, again, strict=False)
    steady = len(outputs) == len(again) and all(_close(a, b, TOLERANCES[precision]) for a, b in pairs)
    return "" if steady else "its output is random or depends on earlier calls"


def _close(expected: ProbeDocument, found: ProbeDocument, tolerance: float) -> bool:
    return bool(expected["shape"] == found["shape"] and _error(expected, found["values"]) <= tolerance)


def _error(expected: ProbeDocument, values: Sequence[float]) -> float:
    """The largest difference of kept values, relative to the largest absolute value; infinite if it is NaN."""
    if len(values) != len(expected["values"]):
        return math.inf
    gap = max((abs(a - b) for a, b in zip(expected["values"], values, strict=True)), default=0.0)
    error = gap / expected["largest"] if expected["largest"] else math.inf if gap else 0.0
    return error if math.isfinite(error) else math.inf


def _difference(expected: Sequence[ProbeDocument], found: Sequence[torch.Tensor], tolerance: float) -> str:
    if len(expected) != len(found):
        return f"it returns {len(found)} tensors, not {len(expected)}"
    for number, (one, output) in enumerate(zip(expected, found, strict=True)):
        sampled = _sampled(output)
        if one["shape"] != sampled["shape"]:
            return f"its output {number} has the shape {sampled['shape']}, not {one['shape']}"
        error = max(_error(one, sampled["values"]), _error({**one, "values": [one["largest"]]}, [sampled["largest"]]))
        if not error <= tolerance:
            return f"its output {number} differs by {error:.2g} of the largest value, where {tolerance:g} is allowed"
    return ""
