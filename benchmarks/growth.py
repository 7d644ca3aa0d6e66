"""How seconds and memory grow with the size of a problem, part by part.

    python benchmarks/growth.py

Every part is a generator of rows, listed in PARTS; its rows replace those of the same part in results/growth.csv, and
other parts' rows stay. `peak_mib` is by how much a process of its own grew at most.

allocation: U units with L levels, damages a * (share removed)^b, widths drawn from 16 to 512. `sum` has separate costs
per unit, `chain` costs as of a chain of convolutions, products of neighbouring widths, `resnet50` the MACs of ResNet-50
with the width of every stage and of both inner convolutions of every block. `front` is the front of all budgets, `plan`
one plan at half of the dense cost; `detail` says what is proved about it.

bank and probes: a chain of U 3 x 3 convolutions of 16 channels on 8 x 8 images, one thread. `bank` is the statistics of
64 images with the order of all positions; `detail` has the memory of the statistics, as known beforehand and as it is,
and the milliseconds to stitch a network from the bank, over L levels. `probes` are U networks, in each of which another
unit has half its width, scored on 200 images (50 for batch norms), a second time over, reusing what runs before that
unit; `detail` has the seconds without reuse.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import in_new_process
from torch import nn

from autoprune.core.space import Candidate, SearchSpace
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import reconstruction
from autoprune.measure.scorer import Scorer, with_dense_outputs
from autoprune.plan.exact.solver import Solver
from autoprune.plan.exact.terms import Terms, product, separable
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria.magnitudes import l1
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.moments.consumers import statistics_bytes
from autoprune.prune.structure.structure import Structure
from autoprune.prune.structure.trace import trace

COLUMNS = ("part", "case", "units", "levels", "seconds", "peak_mib", "detail")

Row = dict[str, Any]


def allocation() -> Iterator[Row]:
    cases = [*itertools.product(("sum", "chain"), (10, 30, 100, 300), (10, 30, 101))]
    for shape, units, levels in [*cases, *(("resnet50", 37, levels) for levels in (8, 16, 32))]:
        for what in ("front", "plan"):
            if what == "front" and shape != "sum" and units * levels**2 > FRONTS:
                continue  # single budgets are what is left there
            measured = in_new_process(allocated, shape, units, levels, what)
            yield {
                "part": "allocation",
                "case": f"{shape}, {what}",
                "units": units,
                "levels": levels,
                "seconds": round(measured.seconds, 3),
                "peak_mib": round(measured.peak_mib),
                "detail": measured.result,
            }


FRONTS = 300_000  # transitions of a chain up to which the front is timed


def allocated(shape: str, units: int, levels: int, what: str) -> str:
    solver = Solver.of(*allocation_instance(shape, units, levels))
    assert solver is not None, "a sum and a chain can be eliminated"
    if what == "front":
        front = solver.frontier
        share = 100 * front.resolution / solver.terms.reach
        return f"{len(front)} plans, " + ("exact" if front.exact else f"buckets of {share:.2g} % of the range of costs")
    dense = float(solver.terms.cost(np.zeros((1, units), dtype=int))[0])
    found = solver.solve(0.5 * dense)
    return "exact" if found.exact else f"at most {found.plan.damage / found.bound - 1:.2g} above the optimum"


def allocation_instance(shape: str, units: int, levels: int) -> tuple[Terms, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    share = np.linspace(1, 1 / levels, levels)
    if shape == "resnet50":
        return resnet50_macs(share), [rng.lognormal(-3, 1) * (1 - share) ** rng.uniform(1.2, 3) for _ in range(units)]
    widths = [np.rint(width * share) for width in rng.integers(16, 513, units)]
    areas = 9 * rng.integers(49, 3137, units).astype(float)
    damages = [rng.lognormal(-3, 1) * (1 - share) ** rng.uniform(1.2, 3) for _ in range(units)]
    if shape == "sum":
        return separable([area * 64 * width for area, width in zip(areas, widths, strict=True)]), damages
    tables = {(u, u + 1): areas[u] * product([widths[u], widths[u + 1]]) for u in range(units - 1)}
    return Terms((levels,) * units, tables), damages


def resnet50_macs(share: np.ndarray) -> Terms:
    """MACs at (l,) shares of every width: stem, and for each stage its own width and two inner ones for each block."""
    widths, pairs = [64], dict[tuple[int, int], int]()
    before, area = 0, 56 * 56
    for stage, blocks in enumerate((3, 4, 6, 3)):
        hub = len(widths)
        widths += [256 * 2**stage] + [64 * 2**stage] * (2 * blocks)
        area //= 4 if stage else 1
        pairs[before, hub] = area  # the projection
        for block in range(blocks):
            first, second = hub + 1 + 2 * block, hub + 2 + 2 * block
            pairs[min(before, first), max(before, first)] = area * (4 if stage and not block else 1)
            pairs[first, second], pairs[hub, second] = 9 * area, area
            before = hub
    kept = [np.rint(width * share) for width in widths]
    tables: dict[tuple[int, ...], np.ndarray] = {p: macs * product([kept[u] for u in p]) for p, macs in pairs.items()}
    tables[0,], tables[before,] = 3 * 49 * 112 * 112 * kept[0], 1000 * kept[before]
    return Terms((len(share),) * len(widths), tables)


def bank() -> Iterator[Row]:
    for units, levels in itertools.product((10, 30, 100, 300), (4, 16)):
        measured = in_new_process(filled, units, levels)
        seconds, detail = measured.result
        yield row("bank", "chain", units, levels, seconds, measured.peak_mib, detail)


def probes() -> Iterator[Row]:
    for units in (10, 30, 100, 300):
        measured = in_new_process(probed, units)
        seconds, detail = measured.result
        yield row("probes", "chain", units, 2, seconds, measured.peak_mib, detail)


def row(part: str, case: str, units: int, levels: int, seconds: float, peak_mib: float, detail: str) -> Row:
    values = (part, case, units, levels, round(seconds, 3), round(peak_mib), detail)
    return dict(zip(COLUMNS, values, strict=True))


def filled(units: int, levels: int) -> tuple[float, str]:
    torch.set_num_threads(1)
    model, structure = chain(units)
    batches = [(torch.randn(64, 3, 8, 8),)]
    names = [unit.name for unit in structure.units]
    made, seconds = clocked(lambda: make_bank(model, structure, names, obs, batches))
    counts = [{unit.name: unit.width * k // levels for unit in structure.units} for k in range(1, levels)]
    _, solved = clocked(lambda: [made.build(made.subnet(kept)) for kept in counts])
    _, stitched = clocked(lambda: [made.build(made.subnet(kept)) for kept in counts])
    held = sum(moments.gram.nbytes + moments.mean.nbytes for moments in made.moments.values())
    predicted = statistics_bytes(model, structure, names)
    each = 1000 / len(counts)
    detail = (
        f"statistics {held / MIB:.1f} MiB, predicted {predicted / MIB:.1f}; a network {solved * each:.0f} ms at first, "
        f"{stitched * each:.0f} ms after"
    )
    return seconds, detail


def probed(units: int) -> tuple[float, str]:
    torch.set_num_threads(1)
    model, structure = chain(units)
    names = [unit.name for unit in structure.units]
    calibrate = [(torch.randn(50, 3, 8, 8),)]
    select = with_dense_outputs(model, [Batch((torch.randn(100, 3, 8, 8),)) for _ in range(2)])
    space = SearchSpace(tuple(names), tuple((unit.width, unit.width // 2) for unit in structure.units))
    reusing = Scorer(make_bank(model, structure, names, l1, calibrate), space, calibrate, select, reconstruction)
    plain = reusing.with_scoring(reuse_gib=0)
    candidates = [Candidate(tuple(int(unit == probed) for unit in range(units))) for probed in range(units)]
    [reusing.score(candidate) for candidate in candidates]  # keeps what the second time reuses
    (reused, with_reuse), (scored, without) = (
        clocked(lambda scorer=scorer: [scorer.score(candidate) for candidate in candidates])
        for scorer in (reusing, plain)
    )
    assert [e.values for e in reused] == [e.values for e in scored], "reuse changes no score"
    return with_reuse, f"{without:.2f} s without reuse"


def chain(units: int) -> tuple[nn.Sequential, Structure]:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(16 if i else 3, 16, 3, padding=1) for i in range(units + 1)]
    model = nn.Sequential(*(layer for conv in convolutions for layer in (conv, nn.ReLU()))).eval()
    for module in model:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return model, trace(model, torch.randn(1, 3, 8, 8))


def clocked(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


MIB = 2**20
PARTS: dict[str, Callable[[], Iterator[Row]]] = {"allocation": allocation, "bank": bank, "probes": probes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("results/growth.csv"))
    options = parser.parse_args()
    for part in options.parts:
        rows = [row for row in read(options.out) if row["part"] != part]
        for row in PARTS[part]():
            rows.append(row)
            print(row, flush=True)
            write(options.out, rows)


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def write(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        file.write("# python benchmarks/growth.py\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
