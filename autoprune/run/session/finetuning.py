"""Prepares fine-tuning: checks the job and reads the training examples."""

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
from autoprune.train.trainer import Trainer


def check_finetune(job: Job, data: Data, model: nn.Module) -> None:
    """Raises ConfigError, with all reasons, if the fine-tuning of a job is not possible."""
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
            "search.guide: expected a measurement of the trained network with finetune, got layer, which training does "
            "not change. Take kl."
        )
    if problems:
        raise ConfigError(problems)


def check_fidelities(plan: FineTune, fidelities: Sequence[float], *, in_parts: bool) -> None:
    """Raises ConfigError if a searcher's fidelities cannot be shares of a fine-tune's steps."""
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
    """Reads the training examples and tests them with one gradient of the dense network.

    The global generators are seeded, so a loader that draws from them yields the same examples every time.

    Args:
        plan: the options of fine-tuning.
        data: the data with the train set.
        model: the dense network.
        placed: moves batches to the device of the training.

    Raises:
        DataError: there are too few examples to hold some of them out.
        RunFailed: the gradient cannot be computed; the message has the cause.
    """
    with seeded(0):
        batches, sha256 = data.training(plan.steps)
    here: Sequence[Batch] = placed(batches)
    if plan.loss in COMPARING:
        compared = with_dense_outputs(model, here)
        here = [batch._replace(dense=main_output(batch.dense)) for batch in compared]
    examples = TrainingSet.of(here, sha256)
    trainer = Trainer(plan, examples, 0)
    try:
        trainer.learner(copy_model(model)).differentiate(examples.batch(0))
    except Exception as error:  # a user's network or loss may raise anything in train mode
        raise RunFailed(f"the dense network cannot be trained: {type(error).__name__}: {error}") from error
    return examples
