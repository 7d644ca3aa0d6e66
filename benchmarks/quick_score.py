"""Candidates scored a second, and how far quick scores rank like the deployable one, against EagleEye's procedure.

    python benchmarks/quick_score.py --data DIR --weights FILE

The job is configs/cifar10_resnet20.yaml. The deployable score is KL to the dense network on the 2,000 selection images
after both passes, in float32 (batch norms anchored on 500 calibration images). Every other way to score is compared
with it by Kendall's tau over 100 random candidates that cover the range of MACs evenly, as random search draws them,
and over others that all have 48.5 to 51.5 % of the MACs, where there is little to tell apart. "quick" anchors the
statistics of each batch to what the batch does to the dense network, "quick, plain" takes them as they are.

EagleEye's procedure is re-enacted on the same candidates: the network thinned by L1 norm, 102 batches of 128 in train
mode, NCHW, float32, then accuracy on the 2,000 images; its batches come round from the 2,500 images at hand, without
its augmentation, which takes time as well. It is timed on a few candidates over the range, in turn with the other
scores of the same candidates. Seconds are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.config import load
from autoprune.core.space import Candidate
from autoprune.core.statistics import kendall_tau
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.batch import BatchAnchor
from autoprune.measure.batch_norms.contract import PolicyName
from autoprune.measure.batch_norms.eagleeye import recalibrate_as_eagleeye
from autoprune.measure.fitness import classification
from autoprune.measure.form import Form
from autoprune.measure.scorer import Scorer
from autoprune.plan.repair import fit_to_budget, stratified
from autoprune.prune.criteria import CRITERIA, UnitStatistics
from autoprune.prune.criteria.ordering import order_unit
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.surgery.surgery import cut
from autoprune.run.session.session import Session, open_session

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_resnet20.yaml"
BAND = (0.485, 0.515)
FAST = Form("channels_last", "bfloat16", 250)

Row = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """A way to score: with these batch norms and this form, on a share of the selection batches."""

    name: str
    norms: PolicyName
    form: Form
    shares: tuple[float, ...] = (1.0,)


WAYS = (
    Way("deployable", "anchored", Form()),
    Way("two passes", "anchored", FAST),
    Way("quick", "batch", FAST, (1.0, 0.5, 0.25)),
    Way("quick, plain", "batch", FAST, (1.0, 0.5, 0.25)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--band", type=int, default=60)
    parser.add_argument("--timed", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("results/quick_score_resnet20_cifar10.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = [f"data.root={options.data}", f"model.weights={options.weights}", "run.tune=off", "run.reuse_gib=0"]
    session = open_session(load(CONFIG, settings).resolve(), lambda progress: None)
    rng = np.random.default_rng(1)
    sets = {"range": over_range(session, rng, options.candidates), "band": in_band(session, rng, options.band)}
    eagleeye = Eagleeye(session)
    rows = [*ranked(session, sets), row_of(Way("EagleEye", "eagleeye", Form("contiguous", batch=128)), 1.0, {})]
    timed(session, eagleeye, sets["range"][:: max(1, options.candidates // options.timed)][: options.timed], rows)
    write(rows, options)


def over_range(session: Session, rng: np.random.Generator, count: int) -> list[Candidate]:
    return [Candidate(tuple(levels.tolist())) for levels in stratified(session.problem, rng, count)]


def in_band(session: Session, rng: np.random.Generator, count: int) -> list[Candidate]:
    """Random candidates within the band, each another one."""
    found: dict[Candidate, None] = {}
    dense = session.dense_costs["macs"]
    while len(found) < count:
        start, target = rng.integers(0, session.space.sizes), rng.uniform(*BAND)
        candidate = Candidate(tuple(fit_to_budget(session.problem, start, rng, "macs", target * dense).tolist()))
        if session.problem.costs_of(candidate)["macs"] >= BAND[0] * dense:
            found[candidate] = None
    return list(found)


def ranked(session: Session, sets: Mapping[str, Sequence[Candidate]]) -> list[Row]:
    """One row for every way and share, with its tau to the deployable score on each set."""
    scores = {way: {name: by_batch(scorer_of(session, way), given) for name, given in sets.items()} for way in WAYS}
    truth = {name: values.mean(axis=1) for name, values in scores[WAYS[0]].items()}
    rows = []
    for way, by_set in scores.items():
        for share in way.shares:
            taus = {name: kendall_tau(first(values, share), truth[name]) for name, values in by_set.items()}
            rows.append(row_of(way, share, taus))
            print(rows[-1], flush=True)
    return rows


def by_batch(scorer: Scorer, candidates: Sequence[Candidate]) -> np.ndarray:
    """(n, batches) KL of every candidate on every selection batch, so that shares of them need no second run."""
    scorer.fitness = each_batch
    evaluations = [scorer.score(candidate) for candidate in candidates]
    return np.array([list(evaluation.values.values()) for evaluation in evaluations])


def each_batch(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    return {str(number): classification(model, [batch], ["kl"])["kl"] for number, batch in enumerate(batches)}


def first(values: np.ndarray, share: float) -> list[float]:
    scores: list[float] = values[:, : math.ceil(share * values.shape[1])].mean(axis=1).tolist()
    return scores


def scorer_of(session: Session, way: Way) -> Scorer:
    scorer = session.scorer.with_scoring(batch_norms=way.norms, form=way.form)
    if way.name == "quick, plain":
        anchor = scorer.stage.batch_norms.anchor
        own = {key: {n: [anchor.own[n]] * len(calls) for n, calls in seen.items()} for key, seen in anchor.seen.items()}
        scorer.stage.batch_norms.anchor = BatchAnchor(anchor.own, own)  # as if batches did nothing to the dense network
    return scorer


class Eagleeye:
    """EagleEye's score of a candidate: thinned by L1 norm, adapted, accuracy on the selection images."""

    def __init__(self, session: Session) -> None:
        self._session = session
        tensors, criterion = named_tensors(session.model), CRITERIA["l1"]
        units = [session.structure.unit(name) for name in session.space.units]
        self._orders = {unit.name: order_unit(criterion, unit, tensors, UnitStatistics(())) for unit in units}
        form = Form("contiguous", batch=128)
        images = form.batches([Batch(inputs) for inputs in session.scorer.calibrate])
        images += form.batches([Batch(batch.inputs) for batch in session.scorer.select])
        self._images = [batch.inputs for batch in form.batches(images)]
        self._select = form.batches(session.scorer.select)

    @torch.no_grad()
    def score(self, candidate: Candidate) -> float:
        counts = self._session.space.counts(candidate)
        positions = {name: np.sort(self._orders[name][:count]) for name, count in counts.items()}
        network = cut(self._session.model, self._session.structure, positions).to(memory_format=torch.contiguous_format)
        recalibrate_as_eagleeye(network, self._images)
        with evaluating(network):
            return classification(network, self._select, ["accuracy"])["accuracy"]


def row_of(way: Way, share: float, taus: Mapping[str, float]) -> Row:
    return {
        "score": way.name,
        "batch_norms": way.norms,
        "dtype": way.form.dtype,
        "images": round(2000 * share),
        "tau_range": round(taus["range"], 4) if taus else "",
        "tau_band": round(taus["band"], 4) if taus else "",
        "seconds": math.nan,
        "faster_than_eagleeye": math.nan,
    }


def timed(session: Session, eagleeye: Eagleeye, candidates: Sequence[Candidate], rows: Sequence[Row]) -> None:
    """Fills in the seconds a candidate and the ratio, all ways in turn on the same candidates."""
    actions: list[Callable[[Candidate], object]] = []
    for way in WAYS:
        scorer = scorer_of(session, way)
        scorer.score(session.space.smallest)  # whatever is set up once
        actions += [lambda c, s=scorer, share=share: s.score(Candidate(c.levels, share)) for share in way.shares]
    actions.append(eagleeye.score)
    seconds = [[processor_seconds(action, candidate) for action in actions] for candidate in candidates]
    for number, row in enumerate(rows):
        row["seconds"] = round(statistics.mean(times[number] for times in seconds), 4)
        ratio = sum(times[-1] for times in seconds) / sum(times[number] for times in seconds)
        row["faster_than_eagleeye"] = round(ratio, 1)


def processor_seconds(action: Callable[[Candidate], object], candidate: Candidate) -> float:
    start = time.process_time()
    action(candidate)
    return time.process_time() - start


def write(rows: Sequence[Row], options: argparse.Namespace) -> None:
    for row in rows:
        print(row)
    options.out.parent.mkdir(exist_ok=True)
    with options.out.open("w", newline="") as file:
        file.write(
            f"# python benchmarks/quick_score.py --data DIR --weights FILE --candidates {options.candidates} "
            f"--band {options.band} --timed {options.timed}\n"
        )
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
