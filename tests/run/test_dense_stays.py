"""Whatever a run does with its networks, the dense network's bytes stay."""

from __future__ import annotations

import pytest
import torch
from tiny import random_data

import autoprune
from autoprune.core.levels import LevelRule
from autoprune.prune.modules.copying import model_digest
from autoprune.run.session import session


@pytest.mark.parametrize("finetune", [None, autoprune.FineTune(steps=2, loss="kl")])
def test_search_fit_training_and_export_leave_the_dense_network_as_it_was(model, finetune, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "copy_model", lambda model: model)  # the run has the model itself, no copy of it
    before = model_digest(model)
    front = autoprune.search(
        model,
        random_data(0, train=40),
        rules=(LevelRule("*", (0.5,)),),
        searcher="uniform",
        evaluations=3,
        compensation="thorough",
        finetune=finetune,
    )
    small = front[0].build()
    with torch.no_grad():
        for tensor in (*small.parameters(), *small.buffers()):
            tensor.zero_()
    front[-1].export(tmp_path / "small")
    front[-1].export(tmp_path / "program", format="pt2")
    assert model_digest(model) == before
