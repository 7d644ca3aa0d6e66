"""A search over heads, their size, neurons and channels of a network with attention, from the model to the export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import autoprune
from autoprune.data import Data

KINDS = {"channels", "heads", "head_dim", "neurons"}


@pytest.fixture
def compensation():
    return "sequential"


class Classifier(nn.Module):
    """Patches, a class token, two encoder layers of torch's own and a linear head."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 24, 4, stride=4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 5, 24))
        layer = nn.TransformerEncoderLayer(24, 4, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 3)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1) + self.places
        return self.head(self.norm(self.layers(tokens))[:, 0])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Classifier().eval()


@pytest.fixture(scope="module")
def data(model):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(180, 1, 8, 8, generator=generator)
    with torch.no_grad():
        labels = model(images).argmax(1)
    calibrate, select, report = images[:60], images[60:120], images[120:]
    return Data.from_arrays(calibrate=(calibrate,), select=(select, labels[60:120]), report=(report, labels[120:]))


@pytest.mark.slow
def test_every_kind_is_searched_measured_proved_and_exported(model, data, tmp_path):
    structure = autoprune.find_structure(model, data.example)
    assert {unit.kind for unit in structure.units} == KINDS | {"branches"}
    front = autoprune.search(model, data, evaluations=12, searcher="random", seed=0, out=tmp_path / "run")
    picked = front.pick("macs<=0.6")
    removed = {unit.kind for unit in structure.units if picked.counts.get(unit.name, unit.width) < unit.width}
    assert removed == KINDS
    assert picked["verify_error"] < 1e-4
    small = picked.build()
    picked.export(tmp_path / "small")
    loaded = autoprune.load(Classifier(), tmp_path / "small").eval()
    images = data.report[0].inputs[0]
    with torch.no_grad():
        assert torch.equal(loaded(images), small(images))
    assert sum(p.numel() for p in loaded.parameters()) == picked["params"]
    assert autoprune.find_structure(loaded, data.example).cost.dense()["macs"] == picked["macs"]
