"""What autoprune does with one model: `python -m zoo.ours MODEL FILE [LAST_STAGE]` writes a JSON line a stage."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import nn

from autoprune import Structure, find_structure, shrink, verify
from zoo.models import SEED, Entry, Inputs
from zoo.pieces import Row, forward_seconds, parameters, report


def measure(entry: Entry) -> Iterator[Row]:
    """The columns of one row, stage after stage; `stage` names the one that begins."""
    yield {"stage": "build"}
    model, inputs = entry.make()
    yield {"stage": "forward", "params": parameters(model)}
    seconds = forward_seconds(model, inputs)
    yield {"stage": "trace", "forward_s": seconds}
    start = time.perf_counter()
    structure = find_structure(model, inputs)
    yield {"stage": "shrink", "trace_s": time.perf_counter() - start, **found(structure)}
    if structure.units:
        yield shrunk(model, structure, inputs)
        yield {"stage": "random counts"}
        counts = random_counts(structure)
        yield {"verify_random": checked(model, shrink(model, structure, counts), structure, inputs)}
    yield {"stage": ""}


def found(structure: Structure) -> Row:
    kinds = Counter(unit.kind for unit in structure.units)
    frozen = sorted(structure.frozen, key=lambda part: part.share, reverse=True)
    return {
        "macs": structure.cost.dense()["macs"],
        "units": "; ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
        "frozen_share": sum(part.share for part in frozen),
        "largest_frozen": f"{frozen[0].what} ({frozen[0].share:.1%}): {frozen[0].reason}"[:300] if frozen else "",
        "uncounted": "; ".join(structure.uncounted),
        "train_mode": train_mode(structure),
        "unmet_share": sum(parameter.share for parameter in structure.unmet),
        "unmet": ", ".join(parameter.name for parameter in structure.unmet)[:200],
        "without_reason": sum(not part.reason for part in structure.frozen),
    }


def train_mode(structure: Structure) -> str:
    """Whether the forward pass in train mode has the operators of eval mode, or other ones, or does not run."""
    own = {run: each for run, each in enumerate(structure.passes) if each.train}
    if not own:
        return "does not run"
    return "other operators" if any(each.traced == run for run, each in own.items()) else "same operators"


def shrunk(model: nn.Module, structure: Structure, inputs: Inputs) -> Row:
    """Half of every unit kept: costs by the polynomials, parameters by the network, and the proof."""
    counts = {unit.name: unit.allowed(math.ceil(unit.width / 2)) for unit in structure.units}
    dense, half = structure.cost.dense(), costs(structure, counts)
    small = shrink(model, structure, 0.5)
    return {
        "kept_macs": half["macs"] / dense["macs"] if dense["macs"] else 1.0,
        "kept_params": parameters(small) / parameters(model),
        "params_off": parameters(small) - half["params"],
        "verify_error": checked(model, small, structure, inputs),
    }


def costs(structure: Structure, counts: Mapping[str, int]) -> dict[str, float]:
    values = structure.cost.evaluate(tuple(counts), np.array([list(counts.values())], dtype=np.int64))
    return {name: value[0].item() for name, value in values.items()}


def random_counts(structure: Structure) -> dict[str, int]:
    rng = np.random.default_rng(SEED)
    return {u.name: u.allowed(int(rng.integers(u.least, u.width, endpoint=True))) for u in structure.units}


def checked(model: nn.Module, small: nn.Module, structure: Structure, inputs: Inputs) -> float:
    return verify(model, small, structure, inputs).worst


if __name__ == "__main__":
    report(measure, sys.argv[1], Path(sys.argv[2]), *sys.argv[3:] or [""])
