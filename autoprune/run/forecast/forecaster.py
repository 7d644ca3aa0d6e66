"""Forecasts the time and the memory of a run from short passes and formulas."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.errors import RunFailed
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.policies import POLICIES
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import is_classification, kept_for, reporting
from autoprune.measure.form import Form
from autoprune.measure.scorer import cause_of
from autoprune.prune.bank.channels import SOLUTION_CACHE_BYTES
from autoprune.prune.compensation.reference import EFFORTS, Reference, linear_layers, make_reference
from autoprune.prune.criteria import CRITERIA, needs_of
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.devices.memory import free_bytes
from autoprune.prune.modules.batch_norms import tracked_norms
from autoprune.prune.modules.borrowed import seeded
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.consumers import find_consumers, measured_weights
from autoprune.prune.passes.containers import copied
from autoprune.prune.passes.known import KnownValues
from autoprune.prune.surgery.surgery import cut
from autoprune.run.executors.evaluator import workers_here
from autoprune.run.forecast import memory
from autoprune.run.forecast.advice import (
    LONG_SEARCH,
    chosen_front_size,
    front_size_note,
    known_form,
    search_advice,
)
from autoprune.run.forecast.bare import BarePass, Inputs, bare_pass, example_seconds
from autoprune.run.forecast.fitting import Fits
from autoprune.run.forecast.forecast import Forecast, Stage
from autoprune.run.forecast.rates import rates
from autoprune.run.forecast.statistics import (
    Elimination,
    eliminations,
    held_out_bytes,
    kept_bytes,
    moments_seconds,
    order_bytes,
    order_seconds,
    solve_seconds,
)
from autoprune.run.session.device import placed
from autoprune.run.session.job import FRONT_SIZES, Job
from autoprune.run.session.session import Session
from autoprune.train.recovery.mimicking import SIZE, STEPS

ALIVE = 2  # what a forward pass holds at once, as a multiple of the activations that are alive
PRODUCTS = 4  # matrices of the size of second moments that exist for a moment: rows, products, two for symmetry
GRADIENTS = 3  # a forward and a backward pass, as a multiple of a forward pass
WORKER_BYTES = 300 << 20  # of a worker process with its libraries, before it scores anything
COUNTED_EXAMPLES = 3  # of the pass that shows what a fit holds
WITHOUT_VALUES = (
    "The network is on the meta device, where passes take no time: times are those of the other work alone, on the CPU."
)


def make_forecast(session: Session, structure_seconds: float) -> Forecast:
    """Forecasts a run from short passes of the dense network and of one with half of each unit.

    Args:
        session: the session, of which nothing is made.
        structure_seconds: what opening the session has taken, in processor seconds.

    Raises:
        RunFailed: the dense network does not run on calibration examples.
    """
    return _Forecaster(session, structure_seconds).forecast()


class _Forecaster:
    """The sizes and the short passes that all stages follow from."""

    def __init__(self, session: Session, structure_seconds: float) -> None:
        self.session, self.job, self.model = session, session.job, session.model
        self.structure_seconds = structure_seconds
        data = session.data
        self.calibrate, self.select, self.report = (_examples(x) for x in (data.calibrate, data.select, data.report))
        self.norms = _first(data.calibrate, self.job.scoring.batch_norm_examples)
        self.units = [session.structure.unit(name) for name in session.sliced]
        zeros = [] if self.job.masks == "magnitude" else list(session.weights)
        weights = [*measured_weights(self.units), *zeros]
        self.consumers, _ = find_consumers(self.model, session.structure, weights)
        self.has_values = session.device.type != "meta"
        device = session.device if self.has_values else torch.device("cpu")
        self.rates = rates(device, torch.get_num_threads())
        self.on_cpu = rates(torch.device("cpu"), torch.get_num_threads())
        self.inputs: Inputs = tuple(placed(x, session.device) for x in data.calibrate[0].inputs)
        self.batch = max(len(batch.inputs[0]) for batch in (*data.calibrate, *data.select))
        self.input_bytes = sum(x.nbytes for x in self.inputs) // len(self.inputs[0])
        self.evaluations = min(self.job.evaluations, session.space.count)
        self.front_size = self.job.front_size or FRONT_SIZES[0]
        self.workers = _workers(self.job)
        self.on_device = free_bytes(session.device) is not None

    def forecast(self) -> Forecast:
        """The forecast: each stage holds what earlier ones have kept."""
        with contextlib.nullcontext() if self.has_values else KnownValues(assuming=True):
            return self._forecast()

    def _forecast(self) -> Forecast:
        session = self.session
        copied = self._collected if self.on_device else 0  # moments are added up on the device
        stages = [
            self._stage("structure", self.structure_seconds, 0, 0),
            self._stage("dense outputs", self._dense_seconds, 0, self._kept + self.active),
            self._stage("moments", self._moments_seconds, copied, self._collected + self._kept + self.active),
            self._stage("order", self._order_seconds, self._moments + order_bytes(self.eliminations), self._kept),
            self._evaluations,
        ]
        notes = self._choose_front_size()
        stages += self._building
        return Forecast(
            tuple(stages),
            self.workers,
            torch.get_num_threads(),
            (self.dense.seconds, self.half.seconds),
            memory.resident_bytes() + (0 if self.has_values else self._weights),
            memory.available_bytes(),
            free_bytes(session.device),
            0 if self.fits is None else self.fits.spilled_bytes,
            memory.disk_bytes(),
            self.front_size,
            tuple(note for note in (*notes, "" if self.has_values else WITHOUT_VALUES, self._advice) if note),
        )

    def _choose_front_size(self) -> list[str]:
        """Takes the size of the front that suits a job that leaves it open; a note, if that is the smaller one."""
        if self.job.front_size is not None:
            return []
        building, search = sum(stage.duration for stage in self._building), self._evaluations.duration
        before, self.front_size = self.members, chosen_front_size(building, search)
        return [front_size_note(self.front_size, building, search)] if self.members < before else []

    @property
    def _advice(self) -> str:
        """A sentence on what would make a long search shorter."""
        search = self._evaluations.duration
        if search <= LONG_SEARCH:
            return ""
        low = None if self.form and self.form.dtype == "bfloat16" else self._ratio(Form(dtype="bfloat16"))
        return search_advice(self.job, search, None if low is None else low * search)

    def _stage(self, name: str, seconds: float, host: int, device: int) -> Stage:
        """A stage of this process that takes so many bytes on the machine, and on the device that networks run on."""
        if self.on_device:
            return Stage(name, seconds, seconds, host, device)
        return Stage(name, seconds, seconds / torch.get_num_threads(), host + device)

    # the passes

    @functools.cached_property
    def dense(self) -> BarePass:
        """A pass of the dense network."""
        modules = {caller.module for consumer in self.consumers.values() for caller in consumer.callers}
        kept = kept_for(reporting(self.job.fitness, self.job.guide))
        try:
            return bare_pass(self.model, self.inputs, sorted(modules), kept)
        except Exception as error:  # from a user's model or data
            raise RunFailed(f"the dense network cannot run on the calibration examples: {cause_of(error)}") from error

    @functools.cached_property
    def small(self) -> nn.Module:
        """A network with about half of each unit, as is typical of a search."""
        space = self.session.space
        levels = {unit: counts[len(counts) // 2] for unit, counts in zip(space.units, space.levels, strict=True)}
        positions = {unit.name: np.arange(levels[unit.name]) for unit in self.units if not unit.is_branch}
        return cut(self.model, self.session.structure, positions).eval()

    @functools.cached_property
    def half(self) -> BarePass:
        """A pass of that network."""
        return bare_pass(self.small, self.inputs, sorted(linear_layers(self.small, self.session.structure)[0]))

    def _ratio(self, form: Form) -> float | None:
        """The time of the pass in a precision, over that in float32; None if the network does not run in it."""
        if form.dtype == "float32":
            return 1.0
        try:
            with form.running(self.session.device), torch.no_grad(), seeded(0):
                low = example_seconds(lambda x: self.small(*copied(x)), self.inputs, self.half.seconds)
        except Exception:  # a network may raise anything in a precision that it does not support
            return None
        return low / self.half.seconds

    @functools.cached_property
    def calibrated_seconds(self) -> float:
        """What an example takes in a pass that re-estimates batch norms; in any other pass if there are none."""
        if not POLICIES[self.job.scoring.batch_norms].calibrates or not tracked_norms(self.small):
            return self.half.seconds
        return example_seconds(lambda x: recalibrate(self.small, [x]), self.inputs, self.half.seconds)

    @functools.cached_property
    def reference(self) -> Reference | None:
        """The reference of the fits, with a few examples; None without fits."""
        if self.job.compensation == "none":
            return None
        few = tuple(x[:COUNTED_EXAMPLES] for x in self.inputs)
        return make_reference(self.model, self.session.structure, [few], effort=EFFORTS[self.job.compensation])

    # times

    @property
    def _dense_seconds(self) -> float:
        """The selection set twice, for outputs and for values, and the anchor."""
        return (2 * self.select + self.norms) * self.dense.seconds

    @property
    def _moments_seconds(self) -> float:
        return self.norms * self.dense.seconds + moments_seconds(
            self.consumers, self.dense.reads, self.norms, self.batch, self.rates
        )

    @functools.cached_property
    def eliminations(self) -> list[Elimination]:
        """The eliminations of the criterion; none if it makes none."""
        chosen = self.units if self._criterion is obs else []
        return eliminations(chosen, self.consumers, self._outputs, self.dense.reads)

    @functools.cached_property
    def _outputs(self) -> dict[str, int]:
        """The number of outputs of a group of each consumer, by name."""
        tensors = named_tensors(self.model)
        sizes = {name: own.design.columns * own.design.groups for name, own in self.consumers.items()}
        return {name: tensors[name].numel() // size for name, size in sizes.items()}

    @property
    def _criterion(self) -> Any:
        return self.job.criterion if callable(self.job.criterion) else CRITERIA[self.job.criterion]

    @property
    def _order_seconds(self) -> float:
        losses = set(needs_of(self._criterion)) - {"moments"}
        passes = GRADIENTS * self.norms * self.dense.seconds if losses else 0.0
        return passes + order_seconds(self.eliminations, self.on_cpu)

    @property
    def score_seconds(self) -> float:
        """What a candidate takes: passes over calibration and selection examples, and fine-tuning."""
        calibrated = self.norms if POLICIES[self.job.scoring.batch_norms].calibrates else 0
        trained = GRADIENTS * self.job.finetune.steps * self.batch if self.job.finetune else 0
        scored = calibrated * self.calibrated_seconds + self.select * self.half.seconds
        return self._precision * scored + trained * self.half.seconds

    @functools.cached_property
    def form(self) -> Form | None:
        """The form of scores; None if it is chosen after the forecast."""
        return known_form(self.job, None if self.session.recorded is None else self.session.recorded.form)

    @functools.cached_property
    def _precision(self) -> float:
        """The factor on the time of a score that its precision makes."""
        return 1.0 if self.form is None else self._ratio(self.form) or 1.0

    @property
    def _solved_seconds(self) -> float:
        """The least squares of the bank, which each worker solves once for a kept count of a consumer's inputs."""
        levels = sum(map(len, self.session.space.levels)) / len(self.session.space.levels)
        times = min(self.evaluations, self.workers * levels)
        return times * sum(solve_seconds(own, self._outputs[name], self.on_cpu) for name, own in self.consumers.items())

    @property
    def _report_seconds(self) -> float:
        contenders = 1 if self.fits is None else 3
        reports = 2 if is_classification(self.job.fitness) else 1  # one for the fitness, and one for recalls by class
        examples = reports * self.report + contenders * self.select
        passes = examples * self.half.seconds + self.norms * self.calibrated_seconds
        return self.report * self.dense.seconds + self.members * passes

    # stages of several processes or of several networks

    @property
    def members(self) -> int:
        """The number of networks that are built for the front; twice its size with branches beside widths."""
        fronts = 2 if self.session.searches_branches else 1
        return min(fronts * self.front_size, self.evaluations)

    @property
    def _building(self) -> list[Stage]:
        """The stages after the search."""
        report = self._pooled("report", self._report_seconds, self.members, self._all_kept, self.active)
        return [self._fits, report]

    def _pooled(self, name: str, seconds: float, networks: int, shared: int, own: int) -> Stage:
        """A stage in which workers build or score networks, with so many bytes that all share and each has its own."""
        executor = self.job.executor
        apart = self.workers if executor.name == "processes" else 0
        threads = torch.get_num_threads() if executor.name == "serial" else max(1, int(executor.cpus))
        device = shared + max(1, apart) * own + (1 + apart) * self._solutions
        stage = self._stage(name, seconds, self._moments + apart * WORKER_BYTES, device)
        return replace(stage, duration=seconds / min(self.workers, networks) / (1 if self.on_device else threads))

    @functools.cached_property
    def _evaluations(self) -> Stage:
        """The search."""
        seconds = self.evaluations * self.score_seconds + self._solved_seconds
        stage = self._pooled("evaluations", seconds, self.evaluations, self._kept + self._reused, self.active)
        limit = self.job.stop.seconds
        return stage if limit is None else replace(stage, duration=min(stage.duration, limit))

    @functools.cached_property
    def fits(self) -> Fits | None:
        """The fit of the small network; None without fits."""
        if self.reference is None:
            return None
        layers, _ = linear_layers(self.small, self.session.structure)
        passes = self.dense.seconds, self.half.seconds
        return Fits(self.reference, layers, self.half.reads, self.calibrate, passes)

    @property
    def _fits(self) -> Stage:
        """The fits of the front's networks."""
        if self.fits is None:
            return self._pooled("fits", 0.0, self.members, self._all_kept, 0)
        seconds = self.fits.seconds(self.members, self.workers, self.rates, self.on_cpu) + self._mimicking_seconds
        shared = 2 * self.calibrate * self.input_bytes + self._all_kept
        own = self.fits.kept_bytes + self.fits.goal_bytes + self.fits.layer_bytes
        return self._pooled("fits", seconds, self.members, shared, own)

    @property
    def _mimicking_seconds(self) -> float:
        """The steps of mimicking, each with a pass of the dense network."""
        if self.job.compensation != "mimic":
            return 0.0
        trained = STEPS * min(SIZE, self.calibrate)
        return self.members * trained * (GRADIENTS * self.half.seconds + self.dense.seconds)

    # memory

    @property
    def _moments(self) -> int:
        """The moments, once they are collected."""
        return kept_bytes(self.consumers, self.dense.reads)

    @property
    def _collected(self) -> int:
        """The moments of all weights, also of what is held out, and what the largest takes while it is added to.

        Which of them are shared shows in the first pass.
        """
        held_out = held_out_bytes(self.consumers, self.dense.reads, self.norms)
        sizes = [consumer.nbytes for consumer in self.consumers.values()]
        return sum(sizes) + held_out + PRODUCTS * max(sizes, default=0)

    @property
    def _weights(self) -> int:
        return sum(tensor.nbytes for tensor in self.model.parameters())

    @property
    def _live(self) -> int:
        """The activations of one example that are alive at once."""
        if self.reference is not None:
            return self.reference.live_bytes
        return 2 * max((4 * read.x.numel() // read.examples for read in self.dense.reads.values()), default=0)

    @property
    def active(self) -> int:
        """What a pass of a batch holds."""
        return ALIVE * self.batch * self._live

    @property
    def _kept(self) -> int:
        """The selection and calibration examples in the form of the passes, and the dense outputs."""
        return (self.select + self.norms) * self.input_bytes + self.select * self.dense.output_bytes

    @property
    def _solutions(self) -> int:
        """The weights that a bank has solved for, and those of a candidate."""
        return min(SOLUTION_CACHE_BYTES, self.evaluations * self._weights) + self._weights

    @property
    def _reused(self) -> int:
        """The dense network's outputs that candidates share."""
        wanted = self.select * ALIVE * self._live * len(self.units)
        return min(self.job.scoring.reuse_bytes, wanted)

    @property
    def _all_kept(self) -> int:
        """The same with the report set, and with what the search has kept."""
        return self._kept + self._reused + self.report * (self.input_bytes + self.dense.output_bytes)


def _workers(job: Job) -> int:
    if job.executor.name == "serial":
        return 1
    return workers_here(job.executor) if job.executor.name == "processes" else job.executor.workers or 1


def _examples(batches: tuple[Batch, ...]) -> int:
    return sum(len(batch.inputs[0]) for batch in batches)


def _first(batches: tuple[Batch, ...], least: int) -> int:
    """The examples of the first batches that have at least so many together."""
    seen = 0
    for batch in batches:
        if seen < least:
            seen += len(batch.inputs[0])
    return seen
