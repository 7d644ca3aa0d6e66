"""The stages of a search on an accelerator, beside the CPU: ResNet-20 / CIFAR-10 and a small vision transformer.

    python benchmarks/accelerator.py --data DIR --weights FILE [--device cuda]

The job of ResNet-20 is configs/cifar10_resnet20.yaml with 60 evaluations and a front of 8. The transformer has six
layers of width 384 with random weights, patches of 4 x 4 and the same images; its numbers are times, not accuracies.
Each network goes through the stages of a search one after the other, first on the accelerator, then on the CPU, as far
as ten minutes allow if the CPU takes 20 times longer. `seconds` are those of the clock, the accelerator waited for;
`peak_mib` is the largest memory of tensors on the accelerator in the stage. `difference` is the largest difference of
the stage's values from the other device's, as a share of the largest value: of second moments and positions, scores
(KL), and outputs of the fitted network.

Without an accelerator it ends with a sentence and exit code 2. `--device cpu` runs small settings on the CPU, to show
that the script works, and writes no results. Rows go to results/accelerator.csv.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.config import load
from autoprune.core.levels import LevelRule
from autoprune.core.space import Candidate
from autoprune.data import Data
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.surgery.verify import verify_positions
from autoprune.run.drive import search
from autoprune.run.session.job import Job, NamedSearcher, silent
from autoprune.run.session.session import Session, open_session
from autoprune.searchers import SEARCHERS

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_resnet20.yaml"
RESULTS = Path(__file__).parents[1] / "results" / "accelerator.csv"
COLUMNS = ("network", "device", "stage", "seconds", "peak_mib", "difference", "detail")
LIMIT_SECONDS = 600.0
SLOWER = 20.0  # a stage is expected to take at most so many times longer on the CPU
SCORES = 20  # networks that are scored, from the smallest to the dense one
EVALUATIONS, FRONT = 60, 8
TINY = ["data.calibrate=60", "data.select=60", "search.batch_norm_examples=60", "run.threads=1"]

Values = Mapping[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument(
        "--device", help="cuda, cuda:N or mps; by default the first there is. cpu only tries the script"
    )
    options = parser.parse_args()
    device = options.device or accelerator()
    if device == "cpu":
        torch.set_num_threads(1)
    if device is None:
        print("no accelerator: torch finds neither cuda nor mps here. --device cpu tries the script.", file=sys.stderr)
        sys.exit(2)
    rows = measured(options, device, time.monotonic())
    if device != "cpu":
        write(rows, device)


def accelerator() -> str | None:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def measured(options: argparse.Namespace, device: str, start: float) -> list[dict[str, Any]]:
    """The rows of all stages: of the accelerator, then of the CPU as far as time allows."""
    jobs = [resnet(options, small=device == "cpu"), transformer(options, small=device == "cpu")]
    rows, values, seconds = [], {}, {}
    for place in dict.fromkeys((device, "cpu")):
        for job in jobs:
            for stage in stages(replace(job, device=place)):
                key = job.name, stage.name
                left = LIMIT_SECONDS - (time.monotonic() - start)
                if place != device and SLOWER * seconds[key] > left:
                    break  # later stages need this one
                seconds[key], peak, found, detail = timed(stage, torch.device(place))
                row = (
                    job.name,
                    place,
                    stage.name,
                    f"{seconds[key]:.2f}",
                    peak,
                    difference(values.get(key), found),
                    detail,
                )
                values.setdefault(key, found)
                rows.append(dict(zip(COLUMNS, row, strict=True)))
                print(rows[-1], flush=True)
    return rows


@dataclass(frozen=True)
class Stage:
    """A stage: what it does, which returns values to compare, and what its row says."""

    name: str
    work: Callable[[], tuple[Values, str]]


def timed(stage: Stage, device: torch.device) -> tuple[float, str, Values, str]:
    """The seconds, the peak memory, the values and the detail of a stage."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    found, detail = stage.work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elapsed = time.perf_counter() - start
    peak = f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}" if device.type == "cuda" else ""
    return elapsed, peak, {name: torch.as_tensor(value).cpu().double() for name, value in found.items()}, detail


def difference(first: Values | None, second: Values) -> str:
    """The largest difference of two results, as a share of the largest value; empty without a first one."""
    if first is None:
        return ""
    pairs = [(first[name], second[name]) for name in first.keys() & second.keys() if first[name].numel()]
    shares = [float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in pairs if a.shape == b.shape]
    return f"{max(shares):.1e}" if shares else ""


def stages(job: Job) -> list[Stage]:
    """The stages of a search, of which each uses what the earlier ones have made."""
    made: dict[str, Session] = {}

    def structure() -> tuple[Values, str]:
        made["session"] = open_session(job, silent)
        units = made["session"].structure.units
        return {}, f"{len(units)} units"

    def bank() -> tuple[Values, str]:
        bank = made["session"].bank
        moments = {name: own.gram for name, own in bank.moments.items()}
        return moments | {unit: torch.from_numpy(order) for unit, order in bank.orders.items()}, "moments and orders"

    def dense() -> tuple[Values, str]:
        session = made["session"]
        return {}, f"{sum(batch.examples for batch in session.select)} selection images"

    def scores() -> tuple[Values, str]:
        session = made["session"]
        session.scorer.prepare()
        found = [session.scorer.score(candidate) for candidate in ladder(session)]
        failed = [evaluation.cause for evaluation in found if evaluation.status != "ok"]
        assert not failed, failed[0]
        return {"kl": torch.tensor([evaluation.values["kl"] for evaluation in found])}, f"{len(found)} networks"

    def fit(jointly: bool) -> tuple[Values, str]:
        session = made["session"]
        subnet = half(session)
        network = session.bank.build(subnet)
        assert session.reference is not None, "the job has a compensation"
        result = compensate(network, session.structure, session.reference, subnet.indices, jointly=jointly)
        with torch.no_grad():
            outputs = torch.cat([network(*batch.inputs) for batch in session.select])
        return {"outputs": outputs}, f"{result.examples} images, {len(result.fits)} layers"

    def verified() -> tuple[Values, str]:
        session = made["session"]
        subnet = half(session)
        network = session.scorer.build(subnet)
        tensors = named_tensors(network)
        report = verify_positions(session.model, network, session.structure, subnet.positions, session.example, tensors)
        assert report.ok, (report.worst, report.tolerance)
        return {}, f"largest difference {report.worst:.1e}, tolerance {report.tolerance:.1e}"

    def whole() -> tuple[Values, str]:
        result = search(job, None)
        return {}, f"{job.evaluations} evaluations, {len(result.members)} networks"

    return [
        Stage("structure", structure),
        Stage("statistics", bank),
        Stage("dense outputs", dense),
        Stage("scores", scores),
        Stage("fit", lambda: fit(False)),
        Stage("joint fit", lambda: fit(True)),
        Stage("verify", verified),
        Stage("whole search", whole),
    ]


def ladder(session: Session) -> list[Candidate]:
    """Networks from the smallest to the dense one."""
    sizes = np.array([len(counts) for counts in session.space.levels])
    shares = np.linspace(0, 1, min(SCORES, session.job.evaluations))
    return [Candidate(tuple(np.round(share * (sizes - 1)).astype(int).tolist())) for share in shares]


def half(session: Session) -> Subnet:
    """The network with the middle level of every unit."""
    return session.scorer.subnet(Candidate(tuple(len(counts) // 2 for counts in session.space.levels)))


def resnet(options: argparse.Namespace, *, small: bool) -> Job:
    """ResNet-20 with its trained weights."""
    settings = [f"data.root={options.data}", f"model.weights={options.weights}", "run.tune=off"]
    settings += (
        ["data.calibrate=60", "data.select=60", "search.batch_norm_examples=60", "run.threads=1"] if small else []
    )
    job = load(CONFIG, settings).resolve()
    return replace(job, name="resnet20", evaluations=3 if small else EVALUATIONS, front_size=2 if small else FRONT)


def transformer(options: argparse.Namespace, *, small: bool) -> Job:
    """The vision transformer on the images of the other job."""
    job = resnet(options, small=small)
    data = job.data()
    few = data if small else replace(data, calibrate=data.calibrate[: len(data.calibrate) // 4])
    return replace(
        job,
        name="vit",
        model=lambda: small_vit(64 if small else 384, 2 if small else 6),
        data=lambda: few_images(few, 100) if small else few,
        rules=(LevelRule("*", tuple(step / 8 for step in range(2, 8))),),
        searcher=NamedSearcher(SEARCHERS["uniform"], {}),
    )


def few_images(data: Data, count: int) -> Data:
    """The first batches of each set, with about so many images."""

    def first(batches: Any) -> Any:
        return batches[: max(1, count // batches[0].examples)]

    return replace(data, calibrate=first(data.calibrate), select=first(data.select), report=first(data.report))


class VisionTransformer(nn.Module):
    """Patches of 4 x 4 of images of 32 x 32, encoder layers, and a classifier of the mean token."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, 6 if width % 6 == 0 else 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.patches, self.head = nn.Conv2d(3, width, 4, stride=4), nn.Linear(width, 10)
        self.places = nn.Parameter(torch.randn(1, 64, width) / 10)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.layers(tokens)).mean(dim=1))


def small_vit(width: int, depth: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VisionTransformer(width, depth).eval()


def write(rows: list[dict[str, Any]], device: str) -> None:
    there = torch.cuda.get_device_name() if device.startswith("cuda") else device
    with RESULTS.open("w", newline="") as file:
        file.write(
            f"# python benchmarks/accelerator.py --data DIR --weights FILE --device {device} ({there}, torch "
            f"{torch.__version__}, {torch.get_num_threads()} CPU threads)\n"
        )
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
