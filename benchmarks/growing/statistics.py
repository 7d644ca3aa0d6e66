"""Seconds and memory of statistics and bank against the number of units: a chain of 3 x 3 convolutions."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.prune.bank import make_bank
from autoprune.prune.consumers import statistics_bytes
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.trace import trace
from autoprune.run.bank_file import load_bank, save_bank

MIB = 2**20


def statistics_rows(
    units: Sequence[int] = (10, 30, 100, 300), levels: int = 8, width: int = 16, images: int = 64
) -> list[dict[str, Any]]:
    """One row for each number of units.

    `bank_s` is the pass over the images with the order of all positions; `predicted_mib` and `held_mib` the memory of
    the statistics as known beforehand and as it is; `save_s`, `load_s` and `file_mib` are of the bank on disk;
    `solve_ms` is the first network at every level but the dense one, on average, `stitch_ms` the same a second time.
    """
    return [_row(count, levels, width, images) for count in units]


def _row(count: int, levels: int, width: int, images: int) -> dict[str, Any]:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(width if i else 3, width, 3, padding=1) for i in range(count + 1)]
    model = nn.Sequential(*(layer for conv in convolutions for layer in (conv, nn.ReLU()))).eval()
    batches = [(torch.randn(images, 3, 8, 8),)]
    structure = trace(model, batches[0][0][:1])
    names = [unit.name for unit in structure.units]
    start = time.perf_counter()
    bank = make_bank(model, structure, names, obs, batches)
    made = time.perf_counter() - start
    counts = [{unit.name: unit.allowed(unit.width * k // levels) for unit in structure.units} for k in range(1, levels)]
    solve, stitch = (_milliseconds(lambda: [bank.build(kept) for kept in counts]) / len(counts) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.safetensors"
        saved = _milliseconds(lambda: save_bank(bank, path, "key")) / 1000
        loaded = _milliseconds(lambda: load_bank(path, "key", model, structure)) / 1000
        size = path.stat().st_size
    return {
        "units": len(names),
        "levels": levels,
        "bank_s": round(made, 2),
        "predicted_mib": round(statistics_bytes(model, structure, names) / MIB, 1),
        "held_mib": round(sum(m.gram.nbytes + m.mean.nbytes for m in bank.moments.values()) / MIB, 1),
        "save_s": round(saved, 2),
        "load_s": round(loaded, 2),
        "file_mib": round(size / MIB, 1),
        "solve_ms": round(solve, 1),
        "stitch_ms": round(stitch, 1),
    }


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    for row in statistics_rows():
        print(row)
