"""A session: the model, data, structure, bank, problem and scorer of a job, loaded or made on one device."""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.core.contracts import Searcher, fidelities_of, reads_parts
from autoprune.core.evaluation import Evaluation
from autoprune.core.levels import build_space
from autoprune.core.objective import Objective
from autoprune.core.problem import BlockDistances, Problem
from autoprune.core.process import ending_forks
from autoprune.core.space import SearchSpace
from autoprune.core.sparse import SparseWeight, with_sparse_costs
from autoprune.core.unit import Unit, blocks_of
from autoprune.data import Data
from autoprune.errors import BankError, ConfigError, DataError
from autoprune.measure.batch import Batch, shuffled
from autoprune.measure.fitness import Fitness, averages, reporting
from autoprune.measure.form import Form, Tuning
from autoprune.measure.layer_error import check_layers, layer_error
from autoprune.measure.scorer import Scorer, with_dense_outputs
from autoprune.measure.settings import ScorerSettings
from autoprune.plan.ladder import branches_beside_widths
from autoprune.plugins import plugin_name
from autoprune.pretrained.networks import check_vocabulary, padded_inputs
from autoprune.prune.bank.channels import Bank, make_bank
from autoprune.prune.bank.weight_units import sparse_units, sparse_weights
from autoprune.prune.bank.weights import WeightBank, make_weight_bank
from autoprune.prune.compensation.reference import EFFORTS, Reference, make_reference
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.criteria.hidden_states import block_distances
from autoprune.prune.criteria.profiles import make_profiles
from autoprune.prune.find import find_structure
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import model_digest
from autoprune.prune.modules.wrappers import unwrapped
from autoprune.prune.passes.examples import Example, as_examples
from autoprune.prune.structure.structure import Structure
from autoprune.run.fingerprint.fingerprint import CodeFacts, architecture
from autoprune.run.session.bank_file import bank_key, load_bank, save_bank
from autoprune.run.session.code import code_of, cost_facts
from autoprune.run.session.costs import make_cost
from autoprune.run.session.device import pick_device, placed, placed_batches
from autoprune.run.session.finetuning import check_fidelities, check_finetune, read_training
from autoprune.run.session.job import Job, OnProgress, Progress
from autoprune.run.session.plugin_checks import expect_data, made_searcher
from autoprune.run.session.problem import check_cost_names, first_measured, state_problem
from autoprune.run.session.tuning import tune
from autoprune.train.examples import TrainingSet
from autoprune.train.recovery.mimicking import Mimicking
from autoprune.train.trainer import FineTuning

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Session:
    """All objects that a run needs, on one device.

    Attributes:
        model: a copy of the user's model, which is never changed.
        example: the calls that the structure holds for: the example of the data, then those of the job.
        weights: the weights that are searched for zeros, by name of their unit.
        recorded: the tuning of a run that is continued, so that its scores stay the same; None tunes anew.
        code: facts on the functions that the job calls (run.session.code) and on the model (run.fingerprint).
    """

    job: Job
    model: nn.Module
    data: Data
    example: tuple[Example, ...]
    structure: Structure
    weights: Mapping[str, SparseWeight]
    space: SearchSpace
    problem: Problem
    device: torch.device
    progress: OnProgress
    recorded: Tuning | None = None
    bank_file: Path | None = None
    code: Mapping[str, CodeFacts] = field(default_factory=dict)

    def __repr__(self) -> str:
        searched = f"{len(self.space.units)} units of {type(self.model).__name__} searched"
        return f"Session({self.job.name!r}: {searched}, on {self.device}, {self.data!r})"

    @property
    def bank(self) -> Bank:
        """The bank: read from the bank file if that is of this session, else made when first needed."""
        return self._opened_bank[0]

    @functools.cached_property
    def _opened_bank(self) -> tuple[Bank, str]:
        """The bank, and the reason why the bank on disk is not used."""
        bank, note = self._read_or_made_bank()
        return (bank.with_weights(self._made_weights()) if self.weights else bank), note

    def _read_or_made_bank(self) -> tuple[Bank, str]:
        """The bank without sparse weights, and the reason why the bank on disk is not used."""
        note = ""
        if self.bank_file is not None and self.bank_file.exists():
            try:
                return load_bank(self.bank_file, self.bank_key, self.model, self.structure), ""
            except BankError as error:
                note = str(error)
        criterion = self.job.criterion if callable(self.job.criterion) else CRITERIA[self.job.criterion]
        self.progress(Progress("statistics", 0, 1, note))
        with ending_forks():
            bank = make_bank(self.model, self.structure, self.sliced, criterion, self._batch_norm_inputs)
        self.progress(Progress("statistics", 1, 1, note))
        return bank, note

    @property
    def bank_facts(self) -> dict[str, Any]:
        """Facts on the bank: its source, and the reason why a file was not used."""
        bank, note = self._opened_bank
        return bank.remarks | ({"file": note} if note else {})

    @property
    def profiled(self) -> Problem:
        """The problem with the profiles of units that closed-form rules read, and the distances between its blocks."""
        units = [self.structure.unit(name) for name in self.sliced]
        profiles = make_profiles(self.model, units, self.bank.moments)
        return replace(self.problem, profiles=profiles, block_distances=self._block_distances)

    def _block_distances(self) -> BlockDistances:
        branches = [name for name in self.sliced if self.structure.unit(name).is_branch]
        with ending_forks():
            return block_distances(self.model, list(blocks_of(branches)), self._batch_norm_inputs)

    @functools.cached_property
    def searcher(self) -> Searcher:
        """The searcher, made once and not told anything yet."""
        return made_searcher(self.job.searcher, self.profiled, self.job.seed)

    @property
    def fidelities(self) -> tuple[float, ...]:
        """The shares of the selection set, or of a fine-tune, that the searcher may ask for; empty if only 1."""
        return fidelities_of(self.searcher)

    def keep_bank(self, path: Path) -> None:
        """Writes the bank, to save time later, unless it is there already. A failure is logged."""
        bank, note = self._opened_bank
        if not note and path.exists():
            return
        try:
            save_bank(bank, path, self.bank_key)
        except OSError as error:
            _log.warning(
                "%s cannot be written: %s. The run goes on without it; resume, solve and export will collect the "
                "statistics again.",
                path,
                error.strerror or error,
            )

    @functools.cached_property
    def bank_key(self) -> str:
        """The key of the bank: a digest of model, units, calibration data, criterion, and software and device."""
        facts = {
            "model": model_digest(self.model),
            "calibrate": self.data.description["sets"]["calibrate"],
            "norm_images": self.job.scoring.batch_norm_examples,
            "units": self.sliced,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        return bank_key(facts, self.structure, self.job.criterion)

    @property
    def sliced(self) -> tuple[str, ...]:
        """Names of the searched units that lose positions: all except those that put zeros into weights."""
        return tuple(name for name in self.space.units if name not in self.weights)

    def _made_weights(self) -> WeightBank:
        with ending_forks():
            return make_weight_bank(self.model, self.structure, self.weights, self.job.masks, self._batch_norm_inputs)

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units of the search: those of the structure and those of sparse weights."""
        return (*self.structure.units, *sparse_units(self.model, self.weights))

    @functools.cached_property
    def scorer(self) -> Scorer:
        return self._untuned.with_scoring(form=self.tuning.form)

    @functools.cached_property
    def tuning(self) -> Tuning:
        """The form that candidates are scored in, with the reason."""
        if self.recorded is not None:
            return self.recorded
        if self.job.executor.name == "serial":
            return self._tuned()
        cpus = max(1, int(self.job.executor.cpus))  # the number of threads of a worker
        with torch_threads(cpus):
            tuning = self._tuned()
        return replace(tuning, form=replace(tuning.form, threads=cpus))

    def _tuned(self) -> Tuning:
        if isinstance(self.job.tune, Form):
            return Tuning(self.job.tune, "as the job says")
        if self.job.tune == "off":
            return Tuning(Form(), "tuning is off")
        self.progress(Progress("tuning", 0, 1))
        forward = replace(self._untuned, training=None)  # the form applies to passes; training is always in float32
        tuning = tune(forward, self.problem, self.job.evaluations, self.job.guide or first_measured(self.job))
        self.progress(Progress("tuning", 1, 1, tuning.reason))
        return tuning

    @functools.cached_property
    def _untuned(self) -> Scorer:
        layers = self.job.guide == "layer"
        if layers:
            check_layers(self.bank, self.space.units)
        in_parts = reads_parts(self.searcher)
        if self.job.finetune:
            check_fidelities(self.job.finetune, self.fidelities, in_parts=in_parts)
        if in_parts and not averages(self.job.fitness):
            raise ConfigError(
                "expected a fitness whose values are means over examples, as the searcher compares candidates part by "
                f"part, got {plugin_name(self.job.fitness)}. Mark it with autoprune.measure.fitness.averaging if its "
                "values are, or take another searcher."
            )
        return Scorer(
            self.bank,
            self.space,
            self._batch_norm_inputs,
            self._selection(),
            self._reporting,
            self._scorer_settings(in_parts),
            objective=first_measured(self.job),
            also={"layer": functools.partial(layer_error, self.bank)} if layers else {},
            training=FineTuning(self.job.finetune, self.training) if self.job.finetune and self.training else None,
        )

    def _scorer_settings(self, in_parts: bool) -> ScorerSettings:
        fidelities = () if self.job.finetune else self.fidelities
        return ScorerSettings(**vars(self.job.scoring), fidelities=fidelities, in_parts=in_parts)

    @functools.cached_property
    def training(self) -> TrainingSet | None:
        """The training examples; None without fine-tuning."""
        plan = self.job.finetune
        if plan is None:
            return None
        self.progress(Progress("train set", 0, 1))
        training = read_training(plan, self.data, self.model, self._batches)
        said = f"{plan.steps} steps of {training.size} out of {training.examples.examples:,} examples for a network"
        self.progress(Progress("train set", 1, 1, said))
        return training

    @functools.cached_property
    def select(self) -> Sequence[Batch]:
        """The selection batches in the order of the data."""
        return with_dense_outputs(self.model, self._batches(self.data.select), self._reporting)

    @property
    def _reporting(self) -> Fitness:
        """The fitness, which measures the guide as well if it can."""
        return reporting(self.job.fitness, self.job.guide)

    def _selection(self) -> Sequence[Batch]:
        """The selection batches; their examples are shuffled if a searcher scores on the first of them only."""
        if self.job.finetune or not self.fidelities:
            return self.select
        batches = self._batches(self.data.select)
        examples = sum(batch.examples for batch in batches)
        ends = {math.ceil(share * examples) for share in self.fidelities}
        if len(ends) < len(self.fidelities):
            raise DataError(
                f"expected enough selection examples for the {len(self.fidelities)} shares of them that the searcher "
                f"scores on, from {self.fidelities[0]:.3g} on, got {examples}. Give more, or take another searcher."
            )
        return with_dense_outputs(self.model, shuffled(batches), self._reporting)

    @property
    def objectives(self) -> Sequence[Objective]:
        """The objectives of the search."""
        return self.problem.objectives

    @property
    def searches_branches(self) -> bool:
        """Whether branches are searched beside widths, so that the front is chosen from two fronts by score."""
        return bool(branches_beside_widths(self.space))

    @functools.cached_property
    def reference(self) -> Reference | None:
        """The dense network and the examples that members of the front are fitted to; None if they are not fitted."""
        if self.job.compensation == "none":
            return None
        inputs, effort = self._inputs(self.data.calibrate), EFFORTS[self.job.compensation]
        return make_reference(self.model, self.structure, inputs, effort=effort)

    @functools.cached_property
    def mimicking(self) -> Mimicking | None:
        """The training without labels of fitted members of the front; None if there is none."""
        return Mimicking.of(self._inputs(self.data.calibrate)) if self.job.compensation == "mimic" else None

    def selected(self, network: nn.Module) -> dict[str, float]:
        """Measures a network on the selection set."""
        return self.scorer.measure(network, self.scorer.select)

    @functools.cached_property
    def reported(self) -> Sequence[Batch]:
        """The batches of the report set, which only the final front is measured on."""
        return with_dense_outputs(self.model, self._batches(self.data.report), self._reporting)

    @functools.cached_property
    def dense_costs(self) -> dict[str, float]:
        return self.problem.costs.dense()

    def admits(self, evaluation: Evaluation) -> bool:
        """Whether an ok evaluation is within the bounds of all objectives; measured ones count on the selection set."""
        limits = [o.limit.absolute(self.dense_costs) for o in self.job.objectives if o.limit]
        return all(limit.admits(evaluation.values[limit.name]) for limit in limits)

    @functools.cached_property
    def finetune_facts(self) -> dict[str, Any]:
        """Facts that determine trained networks; empty without fine-tuning."""
        plan = self.job.finetune
        if plan is None or self.training is None:
            return {}
        examples = {"batch": self.training.size, "train": self.training.sha256}
        return {**asdict(plan), "loss": plugin_name(plan.loss), **examples}

    def _batches(self, batches: Sequence[Batch]) -> list[Batch]:
        return placed_batches(batches, self.device)

    @functools.cached_property
    def _batch_norm_inputs(self) -> Sequence[tuple[torch.Tensor, ...]]:
        """The first calibration batches that have `batch_norm_examples` together."""
        inputs = self._inputs(self.data.calibrate)
        before = itertools.accumulate((len(batch[0]) for batch in inputs), initial=0)
        return [
            batch
            for batch, images in zip(inputs, before, strict=False)
            if images < self.job.scoring.batch_norm_examples
        ]

    def _inputs(self, batches: Sequence[Batch]) -> list[tuple[torch.Tensor, ...]]:
        return [batch.inputs for batch in self._batches(batches)]


@ending_forks()
def open_session(
    job: Job, progress: OnProgress, recorded: Tuning | None = None, bank_file: Path | None = None
) -> Session:
    """Loads model and data, finds the structure and states the problem, and checks all of them.

    Args:
        job: the settings.
        progress: receives the progress.
        recorded: the tuning of a run that is continued.
        bank_file: the path of its bank, which may exist.
    """
    progress = ending_forks()(progress)
    device = pick_device(job.device)
    code = code_of(job)
    data, (model, notes) = load_data(job), load_model(job)
    code["model"] = architecture(model)
    check_finetune(job, data, model)
    check_vocabulary(model, [batch.inputs for batch in (*data.calibrate, *data.select, *data.report)])
    example = _example_calls(job, data, model, device)
    model = model.to(device).eval()
    if any(x.dim() == 4 for x in data.example):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub omits it
    progress(Progress("trace", 0, 1))
    structure = find_structure(model, example)
    structure = replace(structure, notes=(*notes, *structure.notes))
    progress(Progress("trace", 1, 1))
    weights = sparse_weights(model, structure, job.rules)
    if not weights:
        structure.check_prunable()
    space = build_space((*structure.units, *sparse_units(model, weights)), job.rules)
    weights = {name: weight for name, weight in weights.items() if name in space.units}
    costs = with_sparse_costs(structure.cost, weights)
    check_cost_names(job, costs)
    own = {name: make_cost(name, cost, structure, model, example[0]) for name, cost in job.costs.items()}
    problem = state_problem(job, costs, own, space)
    code |= cost_facts(job, code, problem.costs)
    found = structure, weights, space, problem
    return Session(job, model, data, example, *found, device, progress, recorded, bank_file, code)


def _example_calls(job: Job, data: Data, model: nn.Module, device: torch.device) -> tuple[Example, ...]:
    """The example of the data, one with padding if the network takes some by name, and the further calls of the job."""
    padded = padded_inputs(model, data.example)
    own = [Example(tuple(data.example)), *([] if padded is None else [Example(padded, name="padded")])]
    further = () if job.calls is None else as_examples(job.calls())
    return tuple(each.converted(lambda x: placed(x, device)) for each in as_examples((*own, *further)))


def load_data(job: Job) -> Data:
    """The user's data sets."""
    data = job.data()
    expect_data(data)
    return data


def load_model(job: Job) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy of the user's model without its wrappers, and a note about each wrapper."""
    model = job.model()
    if not isinstance(model, nn.Module):
        got = f"the class {model.__name__}; call it" if isinstance(model, type) else type(model).__name__
        raise ConfigError(f"model: expected the factory to return a torch.nn.Module, got {got}")
    model, notes = unwrapped(model)
    return copy_model(model), notes
