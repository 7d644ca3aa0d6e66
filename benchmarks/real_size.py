"""What second moments and orders of networks of real size take, beside a bare forward pass of the same network.

    python benchmarks/real_size.py moments|order|fit MODEL ...

MODEL is resnet50, vit_b_16, convnext_tiny or densenet121 of torchvision at 224 x 224, bert of transformers in its base
size with 128 tokens, or detector, that of detector.py at 640 x 640; weights are random, batch norms settled, and the
inputs noise. One thread. Rows go to results/real_size_moments.csv, results/real_size_order.csv and
results/real_size_fit.csv; those of other models stay.

`bare_ms` are processor milliseconds a forward pass takes for an example, in batches as for the moments. `moments`:
`bare_passes` is what the second moments of an example take, as a multiple of that; `predicted_mib` is the memory that
is announced before. `order`: `bare_passes` is what `obs` takes for all units together, as a multiple of a pass of one
example; the moments are of few examples, which makes no difference to the time. `peak_mib` is by how much the process
grew at most over the bare passes, with the moments in both parts. `fit`: `bare_passes` is what the fit of one network
with half of every width takes, joint fits included, as a multiple of a pass of the dense network over all examples;
`predicted_mib` is what is kept of paused passes. Widths are halved from the front, as only time and memory count.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from detector import Detector
from processes import in_new_process
from tables import read_table, write_table
from torch import nn
from zoo.models import declare_torchvision_operators

from autoprune.prune.bank.channels import notes_on
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.compensation.reference import make_reference
from autoprune.prune.criteria.ordering import order_units
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.consumers import consumers_of, statistics_bytes
from autoprune.prune.moments.moments import collect_moments
from autoprune.prune.structure.structure import Structure
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.surgery import cut, kept_indices

TORCHVISION = ("resnet50", "vit_b_16", "convnext_tiny", "densenet121")
BATCH = 8
BATCHES = {"moments": 32, "order": 1, "fit": 8}

Inputs = tuple[torch.Tensor, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=BATCHES)
    parser.add_argument("models", nargs="+", choices=(*TORCHVISION, "bert", "detector"), metavar="MODEL")
    arguments = parser.parse_args()
    for model in arguments.models:
        row = in_new_process(measured, arguments.part, model).result
        print(*(f"{key} {value}" for key, value in row.items()), sep=", ", flush=True)
        write(arguments.part, row)


def measured(part: str, name: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    model, batches = made(name, BATCHES[part])
    examples = BATCH * len(batches)
    structure = trace(model, (batches[0][0][:1],))
    units = [unit for unit in structure.units if not unit.is_branch]
    names, weights = [unit.name for unit in units], consumers_of(units)
    bare = seconds(lambda: [forward(model, batch) for batch in batches])[0] / examples
    if part == "fit":
        return fitted(name, model, structure, batches, bare)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken, (moments, sliced) = seconds(lambda: collect_moments(model, structure, weights, batches))
    remarks = notes_on(moments, named_tensors(model)) | sliced
    detail = f"{len(moments)} weights with moments, {len(sliced)} without, {len(remarks)} remarks"
    passes = taken / examples / bare
    if part == "order":
        taken, (_, remarks) = seconds(lambda: order_units(model, structure, units, obs, moments, batches))
        detail = f"{len(remarks)} units by l2"
        passes = taken / bare
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "model": name,
        "units": len(units),
        "examples": examples,
        "bare_ms": round(1000 * bare),
        "seconds": round(taken, 2),
        "bare_passes": round(passes, 2),
        "peak_mib": round(peak / 1024),
        "predicted_mib": round(statistics_bytes(model, structure, names) / 2**20),
        "detail": detail,
    }


def fitted(name: str, model: nn.Module, structure: Structure, batches: list[Inputs], bare: float) -> dict[str, Any]:
    """The row of a fit."""
    units = [unit for unit in structure.units if not unit.is_branch]
    halves = {unit.name: np.arange(max(unit.least, unit.width // 2)) for unit in units}
    small = cut(model, structure, halves)
    indices = kept_indices(structure.units, halves, named_tensors(model))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reference = make_reference(model, structure, batches)
    taken, result = seconds(lambda: compensate(small, structure, reference, indices))
    kept = sum(fit.kept for fit in result.fits.values())
    detail = f"{len(result.fits)} layers fitted, {kept} of them kept, {len(result.untouched)} untouched"
    return {
        "model": name,
        "units": len(units),
        "examples": result.examples,
        "bare_ms": round(1000 * bare),
        "seconds": round(taken, 2),
        "bare_passes": round(taken / bare / result.examples, 2),
        "peak_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
        "predicted_mib": round(reference.held_bytes / 2**20),
        "detail": detail,
    }


def made(name: str, count: int) -> tuple[nn.Module, list[Inputs]]:
    """A network with settled batch norms, and batches of inputs."""
    declare_torchvision_operators()
    torch.manual_seed(0)
    if name == "bert":
        from transformers import BertConfig, BertForSequenceClassification

        model: nn.Module = BertForSequenceClassification(BertConfig())
        batches: list[Inputs] = [(torch.randint(3, 30_000, (BATCH, 128)),) for _ in range(count)]
    elif name == "detector":
        model = Detector()
        batches = [(torch.randn(BATCH, 3, 640, 640),) for _ in range(count)]
    else:
        from torchvision.models import get_model

        model = get_model(name, weights=None)
        batches = [(torch.randn(BATCH, 3, 224, 224),) for _ in range(count)]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of the one batch below
            module.reset_running_stats()
    forward(model.train(), batches[0])
    return model.eval(), batches


def forward(model: nn.Module, batch: Inputs) -> Any:
    with torch.no_grad():
        return model(*batch)


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it returns."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def write(part: str, row: dict[str, Any]) -> None:
    table = f"real_size_{part}.csv"
    kept = [old for old in read_table(table) if old["model"] != row["model"]]
    names = " ".join([*(old["model"] for old in kept), row["model"]])
    write_table(table, f"python benchmarks/real_size.py {part} {names}", [*kept, row])


if __name__ == "__main__":
    main()
