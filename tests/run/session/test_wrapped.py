"""Jobs whose factory returns a wrapped network search the one inside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.copying import model_digest
from autoprune.run.session.job import silent
from autoprune.run.session.session import open_session

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of scripting and compilation


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
def test_a_wrapped_network_is_searched_as_the_one_inside_and_a_note_says_so(job, model, wrap):
    session = open_session(job(model=lambda: wrap(model)), silent)
    plain = open_session(job(), silent)
    assert session.structure.units == plain.structure.units
    assert model_digest(session.model) == model_digest(plain.model)
    (note,) = session.structure.notes
    assert "was removed" in note
    assert plain.structure.notes == ()


def test_a_scripted_network_is_refused_before_anything_is_searched(job, model):
    scripted = torch.jit.trace(model, torch.randn(1, 3, 8, 8))
    with pytest.raises(UnsupportedModel, match="TorchScript module"):
        open_session(job(model=lambda: scripted), silent)
