"""Chooses the form that candidates are scored in by timing some: layout, batch size, threads, precision.

Each step keeps the fastest form so far and varies one more setting. Layout, batch size and threads change scores by
rounding only; a lower precision is chosen only if it ranks random candidates as float32 does.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.core.statistics import kendall_tau
from autoprune.measure.batch import Batch, rebatched
from autoprune.measure.batch_norms.policies import POLICIES
from autoprune.measure.form import DEFAULT_FORM, Form, Trial, Tuning
from autoprune.measure.scorer import Scorer
from autoprune.plan.repair import stratified
from autoprune.prune.devices.halving import halving
from autoprune.prune.devices.memory import device_of
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.passes.containers import copied

BATCHES = (50, 100, 250, 500)
RANKED = 10  # random candidates that precisions are compared on
AGREEMENT = 0.98  # least Kendall tau of their rankings; with ten candidates every pair must have the same order
LEAST_SPEEDUP = 1.1  # a form must be this many times faster to be chosen, as less may be noise
WORTH_SECONDS = 60.0  # a search whose scores take less time in all is not tuned
TIMED_SECONDS = 0.15  # a form is timed on about as many examples as pass in this time


def tune(scorer: Scorer, problem: Problem, evaluations: int, guide: str) -> Tuning:
    """Finds the fastest form for candidates of about half the width, which are typical of a search.

    Args:
        scorer: scores candidates.
        problem: gives random candidates.
        evaluations: the budget of the search; a short search is not tuned.
        guide: name of the measurement by which rankings are compared.
    """
    bench = _Bench(scorer)
    plain = bench.trial(DEFAULT_FORM)
    if plain.examples_per_second is None:
        return Tuning(DEFAULT_FORM, f"the network could not be timed: {plain.note}", (plain,))
    needed = evaluations * bench.examples / plain.examples_per_second
    if needed < WORTH_SECONDS:
        reason = f"{evaluations} scores take about {needed:.0f} s in all: too little for tuning to pay"
        return Tuning(DEFAULT_FORM, reason, (plain,))
    best = _best_in_float32(bench, plain, tunes_batch=POLICIES[scorer.scoring.batch_norms].tunes_batch)
    low = bench.trial(replace(best.form, dtype="bfloat16"))
    reason, said = f"fastest of {len(bench.trials)} forms", ""
    if (low.examples_per_second or 0) > LEAST_SPEEDUP * _rate(best):
        agreement = bench.agreement(low.form, problem, guide)
        said = f"; bfloat16 ranks {RANKED} random candidates with Kendall tau {agreement:.3f} to float32"
        if agreement >= AGREEMENT:
            return Tuning(low.form, f"{reason}{_gain(low, plain)}{said}", tuple(bench.trials))
        reason, said = f"{reason} in float32", f"{said}, below {AGREEMENT}"
    return Tuning(best.form, f"{reason}{_gain(best, plain)}{said}", tuple(bench.trials))


def _gain(trial: Trial, plain: Trial) -> str:
    """How much faster a form is than that of the data."""
    return f", {_rate(trial) / _rate(plain):.1f} times as fast as that of the data" if trial != plain else ""


def _best_in_float32(bench: _Bench, plain: Trial, *, tunes_batch: bool) -> Trial:
    """Varies one setting after the other. The batch size stays if scores depend on it (`tunes_batch` is false)."""
    best = plain
    cores = torch.get_num_threads()
    steps: list[Sequence[dict[str, Any]]] = [
        [{"layout": layout} for layout in ("channels_last", "contiguous")],
        [{"batch": batch} for batch in BATCHES if tunes_batch and batch <= bench.examples],
        [{"threads": count} for count in sorted({1, cores // 2, cores} - {0, cores})],
    ]
    for step in steps:
        trials = [bench.trial(replace(best.form, **change)) for change in step]
        fastest = max([best, *trials], key=_rate)
        best = fastest if _rate(fastest) > LEAST_SPEEDUP * _rate(best) else best
    return best


def _rate(trial: Trial) -> float:
    return trial.examples_per_second or 0.0


class _Bench:
    """Times forward passes of a half-width candidate on the first selection examples."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.trials: list[Trial] = []
        half = Candidate(tuple(len(counts) // 2 for counts in scorer.space.levels))
        counts = scorer.space.counts(half)
        # zeros in a weight take the same time as other entries
        self._subnet = scorer.bank.subnet({unit: counts[unit] for unit in counts if unit in scorer.bank.orders})
        self._device = device_of(scorer.bank.model)

    @property
    def examples(self) -> int:
        """The number of examples that one score passes through the network."""
        calibrates = POLICIES[self.scorer.scoring.batch_norms].calibrates
        calibrating = sum(len(x[0]) for x in self.scorer.calibrate) if calibrates else 0
        return calibrating + sum(len(batch.inputs[0]) for batch in self.scorer.select)

    def trial(self, form: Form) -> Trial:
        try:
            trial = Trial(form, self._examples_per_second(form))
        except Exception as error:  # a network may raise anything in a form that it does not support
            trial = Trial(form, None, f"{type(error).__name__}: {error}")
        self.trials.append(trial)
        return trial

    def agreement(self, form: Form, problem: Problem, guide: str) -> float:
        """Kendall tau between the scores of random candidates in this form and in float32, on fewer examples."""
        levels = stratified(problem, np.random.default_rng(0), RANKED)
        candidates = [Candidate(tuple(row.tolist())) for row in levels]
        few = replace(self.scorer, calibrate=self.scorer.calibrate[:1], select=self.scorer.select[:2])
        low, full = (
            [few.with_scoring(form=form_, reuse_gib=0).score(c).values.get(guide, math.nan) for c in candidates]
            for form_ in (form, replace(form, dtype="float32"))
        )
        return kendall_tau(low, full) if np.isfinite([low, full]).all() else math.nan

    @torch.no_grad()
    def _examples_per_second(self, form: Form) -> float:
        """The speed of the faster of two rounds, after a warm-up round."""
        with form.running(self._device):
            network = form.dress(self.scorer.bank.build(self._subnet))
            batches: Sequence[Batch] = self._some(form)
            with evaluating(network):
                batches = halving(functools.partial(self._warmed, network), batches, stage="tuning")
                seconds = min(self._round(network, batches) for _ in range(2))
        return sum(len(batch.inputs[0]) for batch in batches) / seconds

    def _some(self, form: Form) -> list[Batch]:
        """The selection batches that the first form passes in TIMED_SECONDS, at least one batch of this form."""
        rate = self.trials[0].examples_per_second if self.trials else None
        wanted = max(form.batch or 0, int((rate or 0) * TIMED_SECONDS), 1)
        taken = list(_first(self.scorer.select, wanted))
        return form.batches(taken if form.batch is None else rebatched(taken, form.batch))

    def _warmed(self, network: nn.Module, batches: Sequence[Batch]) -> Sequence[Batch]:
        """The batches, after a round with the first of them."""
        self._round(network, batches[:1])
        return batches

    def _round(self, network: nn.Module, batches: Iterable[Batch]) -> float:
        start = time.perf_counter()
        for batch in batches:
            network(*copied(batch.inputs))
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - start


def _first(batches: Sequence[Batch], examples: int) -> Iterable[Batch]:
    """The first batches that together have at least `examples` examples."""
    seen = 0
    for batch in batches:
        if seen >= examples:
            return
        seen += len(batch.inputs[0])
        yield batch
