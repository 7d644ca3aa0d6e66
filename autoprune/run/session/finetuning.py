"""What fine-tuning needs before anything is trained: examples read from the data, and a job that goes with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from autoprune.data import Data
from autoprune.errors import ConfigError, RunFailed
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.policies import POLICIES
from autoprune.measure.scorer import with_dense_outputs
from autoprune.prune.modules.borrowed import seeded
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.passes.containers import main_output
from autoprune.run.session.job import Job
from autoprune.train.examples import TrainingSet
from autoprune.train.finetune import COMPARING, FineTune
from autoprune.train.trainer import Learner


def check_finetune(job: Job, data: Data, model: nn.Module) -> None:
    """Raises ConfigError, with all reasons, where a job asks for fine-tuning and it cannot be done as it is."""
    if job.finetune is None:
        return
    problems = []
    if data.train is None:
        problems.append(
            "finetune: expected data with a train set, got none. Give it one, Data.from_arrays(..., train=(x, y)), or "
            "remove finetune."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        problems.append(
            "finetune: expected a model with parameters to train, got none that requires a gradient. Call "
            "model.requires_grad_(True) where it is made."
        )
    policy = POLICIES[job.scoring.batch_norms]
    if policy.deployed() is not policy:
        problems.append(
            "search.batch_norms: expected anchored or reestimated with finetune, as batch norms of trained networks "
            f"are re-estimated on training examples, got {job.scoring.batch_norms}. Remove one of the two."
        )
    if job.guide == "layer":
        problems.append(
            "search.guide: expected what is measured of a network with finetune, got layer, which no training changes. "
            "Take kl."
        )
    if problems:
        raise ConfigError(problems)


def check_fidelities(plan: FineTune, fidelities: Sequence[float], *, in_parts: bool) -> None:
    """Raises ConfigError where a searcher's fidelities cannot be shares of a fine-tune's steps."""
    if in_parts:
        raise ConfigError(
            "finetune: expected a searcher that does not compare networks part by part of the selection set, as "
            "fidelities are shares of the steps then, got one that does (racing, a WilcoxonPruner). Take halving, "
            "asha, screening or evopress, or remove finetune."
        )
    if len({plan.steps_at(share) for share in fidelities}) < len(fidelities):
        raise ConfigError(
            f"finetune.steps: expected enough for the {len(fidelities)} shares of them that the searcher trains for, "
            f"from {fidelities[0]:.3g} on, got {plan.steps}. Give more, or take another searcher."
        )


def read_training(
    plan: FineTune, data: Data, model: nn.Module, placed: Callable[[Sequence[Batch]], list[Batch]]
) -> TrainingSet:
    """The examples of a data set that networks are trained on, `placed` where they are trained; tried on the dense one.

    What a loader draws from global random states is the same every time.

    Raises RunFailed, with the cause, where the dense network has no gradient on them.
    """
    with seeded(0):
        batches, sha256 = data.training(plan.steps)
    here: Sequence[Batch] = placed(batches)
    if plan.loss in COMPARING:
        compared = with_dense_outputs(model, here)
        here = [batch._replace(dense=main_output(batch.dense)) for batch in compared]
    examples = TrainingSet.of(here, sha256)
    try:
        Learner.of(copy_model(model), plan).differentiate(plan, examples.batch(0))
    except Exception as error:  # whatever a user's network or loss raises in train mode
        raise RunFailed(f"the dense network cannot be trained: {type(error).__name__}: {error}") from error
    return examples
