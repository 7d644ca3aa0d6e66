"""Integers that say a width follow it in a small network, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.prune.modules.attributes import get, put, says_width


@dataclass(frozen=True)
class Sizes:
    embed_dim: int
    depth: int = 2


class InnerConfig:
    def __init__(self, width: int) -> None:
        self.hidden_size = width


class OuterConfig:
    def __init__(self, width: int) -> None:
        self.text = InnerConfig(width)
        self.hidden_sizes = [8, width]
        self.image_size = width


class Backbone(nn.Module):
    """Keeps its widths in every way that libraries do; no forward pass reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.head = nn.Linear(24, 5)
        self.num_features = self.inplanes = self._num_features = 24
        self.feature_info = [{"num_chs": 8, "module": "stem"}, {"num_chs": 24, "module": "body", "reduction": 24}]
        self.embed_dims = (8, 24)
        self.options = {"head": {"in_features": 24, "window": 24}}
        self.config, self.sizes = OuterConfig(24), Sizes(24)
        self.num_layers = self.patch_size = 24

    @property
    def width(self) -> int:
        return self._num_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def small_of(model: nn.Module, x: Any, kept: Any) -> tuple[nn.Module, autoprune.Structure]:
    structure = autoprune.find_structure(model.eval(), x)
    small = autoprune.shrink(model, structure, kept)
    assert autoprune.verify(model, small, structure, x).ok
    return small, structure


def test_every_way_to_keep_a_width_is_followed_and_other_numbers_stay() -> None:
    model = Backbone()
    small, structure = small_of(model, torch.randn(1, 3, 8, 8), {"stem": 5, "body.0": 9})
    assert structure.notes == ()
    assert (small.num_features, small.inplanes, small.width) == (9, 9, 9)
    assert small.feature_info == [
        {"num_chs": 5, "module": "stem"},
        {"num_chs": 9, "module": "body", "reduction": 24},
    ]
    assert small.embed_dims == (5, 9)
    assert small.options == {"head": {"in_features": 9, "window": 24}}
    assert (small.config.text.hidden_size, small.config.hidden_sizes, small.config.image_size) == (9, [5, 9], 24)
    assert small.sizes == Sizes(9)
    assert (small.num_layers, small.patch_size) == (24, 24)
    assert (model.num_features, model.config.hidden_sizes, model.sizes) == (24, [8, 24], Sizes(24))


class Equal(nn.Module):
    """Two independent layers of one width."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.hidden_size = 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


def test_a_number_that_several_widths_have_stays_and_is_said() -> None:
    small, structure = small_of(Equal(), torch.randn(2, 4), {"first": 7, "second": 11})
    assert small.hidden_size == 16
    assert structure.notes == (
        "'hidden_size' of the top module stays 16 in a small network: several independent widths have this size "
        "(first, second). Set it where you need it.",
    )


class Scaled(nn.Module):
    """Computes with a number in a dictionary: another one would be another function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.options = nn.Linear(4, 16), nn.Linear(16, 3), {"hidden_dim": 16}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x) * self.options["hidden_dim"] ** -0.5)


def test_a_number_that_is_computed_with_stays() -> None:
    small, structure = small_of(Scaled(), torch.randn(2, 4), 0.5)
    assert [unit.name for unit in structure.units] == ["first"]
    assert small.options == {"hidden_dim": 16}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(
            (name, True)
            for name in ("num_features", "in_planes", "inplanes", "hidden_size", "d_model", "config.n_embd")
        ),
        *((name, True) for name in ("ffn_dim", "intermediate_size", "x['num_chs']", "embed_dims[2]", "outChannels")),
        *((name, False) for name in ("num_hidden_layers", "patch_size", "num_classes", "max_width", "kernel_size")),
        *((name, False) for name in ("num_heads", "image_size", "depths[0]", "size", "vocab_size", "hidden_layers")),
    ],
)
def test_names_that_say_a_width(name: str, expected: bool) -> None:
    assert says_width(name) == expected


@pytest.mark.parametrize("path", ["options['head']['in_features']", "embed_dims[1]", "sizes.embed_dim", "num_features"])
def test_what_is_put_at_a_path_is_found_there(path: str) -> None:
    model = Backbone()
    assert get(model, path) == 24
    put(model, path, 3)
    assert get(model, path) == 3
