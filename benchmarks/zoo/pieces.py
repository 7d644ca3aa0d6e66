"""How a process that measures one model reports: a JSON line a stage, so that a process that dies loses one stage."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.models import Entry, Inputs, run, zoo

Row = dict[str, Any]
Measure = Callable[[Entry], Iterator[Row]]


def report(measure: Measure, name: str, path: Path, last: str) -> None:
    """Writes what `measure` yields for the named model to the file, until it begins the stage `last` or raises."""
    entry = next(entry for entry in zoo() if entry.name == name)
    with path.open("w", buffering=1) as file:
        try:
            for piece in measure(entry):
                file.write(json.dumps(piece) + "\n")
                if piece.get("stage") == last:
                    return
        except Exception as error:  # any failure is a row of the benchmark; the traceback goes to stderr
            file.write(json.dumps({"error": one_line(error)}) + "\n")
            raise


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


def forward_seconds(model: nn.Module, inputs: Inputs) -> float:
    """Seconds of one forward pass, the median of three."""
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            run(model, inputs)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
