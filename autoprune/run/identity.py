"""The identity of a run, its environment and its structure, as a run folder records them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from autoprune.core.options import declared_options
from autoprune.measure.settings import Scoring
from autoprune.plugins import plugin_name
from autoprune.prune.modules.copying import model_digest
from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.passes.examples import Example
from autoprune.run.fingerprint.secrets import redacted
from autoprune.run.session.session import Session

KEYS_OF_OPTIONS = {"batch_norm_examples": "norm_images"}  # its name when the first journals were written
PLAIN_TYPES = (bool, int, float, str)  # types of arguments that identify a call by their values


def identity_of(session: Session) -> dict[str, Any]:
    """The facts that must stay the same for a resumed run to repeat the journal."""
    return {
        "space": session.space.to_json(),
        "objectives": [[o.name, o.direction, o.bound] for o in session.job.objectives],
        "guide": session.job.guide,
        **_scoring_facts(session.job.scoring),
        "compensation": session.job.compensation,
        "fitness": plugin_name(session.job.fitness),
        "criterion": plugin_name(session.job.criterion),
        "device": session.device.type,
        "seed": session.job.seed,
        "evaluations": session.job.evaluations,
        "model": model_digest(session.model),
        "data": {name: facts["sha256"] for name, facts in session.data.description["sets"].items()},
        **({"calls": _digest(session.example[1:])} if session.job.calls else {}),
        **({"masks": plugin_name(session.job.masks)} if session.weights else {}),
        **({"fidelities": list(session.fidelities)} if session.fidelities else {}),
        **({"finetune": session.finetune_facts} if session.finetune_facts else {}),
        "code": {name: facts for name, facts in session.code.items() if name != "masks" or session.weights},
    }


def _scoring_facts(scoring: Scoring) -> dict[str, Any]:
    """The options of scoring that change scores."""
    names = [declared.name for declared in declared_options(Scoring) if declared.option.changes_scores]
    return {KEYS_OF_OPTIONS.get(name, name): getattr(scoring, name) for name in names}


def _digest(examples: Sequence[Example]) -> str:
    """The sha256 of the names, methods and arguments of calls; tensors count by value, other arguments by text."""
    digest = hashlib.sha256()
    for example in examples:
        tensors = tensors_of((example.args, dict(example.kwargs)), caches=True)
        leaves = tree_leaves((example.args, dict(example.kwargs)))
        plain = [str(leaf) for leaf in leaves if isinstance(leaf, PLAIN_TYPES)]
        digest.update(f"{example.name} {example.method} {sorted(example.kwargs)} {plain}".encode())
        for tensor in tensors:
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def environment_of(session: Session) -> dict[str, Any]:
    """Facts on the environment in which the results were made."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": str(session.device),
        "threads": torch.get_num_threads(),
        "executor": redacted(asdict(session.job.executor)),
        "tuning": session.tuning.to_json(),
        "reuse_bytes": session.job.scoring.reuse_bytes,
        "data": session.data.description,
        **({"finetune": session.finetune_facts} if session.finetune_facts else {}),
        "bank": session.bank_facts,
        **({"weights": session.bank.weights.remarks} if session.weights else {}),
        "frozen": [[row.what, row.share, row.reason] for row in session.structure.frozen],
        "uncounted_operators": list(session.structure.uncounted),
        "unmet": [[row.name, row.share] for row in session.structure.unmet],
        "notes": list(session.structure.notes),
    }


def coupling_of(session: Session) -> dict[str, Any]:
    """Every unit with the tensors it touches, and all modules that hold tensors, in the model's order."""
    modules = [
        name
        for name, module in session.model.named_modules()
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    ]
    return {"modules": modules, "units": [unit.to_json() for unit in session.units]}
