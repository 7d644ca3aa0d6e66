"""Sequential compensation against networks whose best repair is known, and held-out images."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import (
    HEADS,
    PATTERNS,
    SEQUENCE_HEADS,
    SEQUENCES,
    MeanOfTokens,
    TokensMixed,
    example_of,
    fingerprint,
    images,
    network,
    same,
    some_positions,
    words,
)
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.errors import DataError
from autoprune.prune.compensation import activations
from autoprune.prune.compensation import compensate as compensation
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.compensation.reference import Effort, behind_gaps, make_reference
from autoprune.prune.find import find_structure
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.surgery.surgery import cut, kept_indices, rebuild


class Block(nn.Module):
    """Two convolutions beside a shortcut, as in the residual networks of CIFAR; `how` they are added."""

    def __init__(self, c: int = 6, wide: int = 8, *, norm: bool = True, how: str = "plain", project: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(c, wide, 3, padding=1, bias=not norm)
        self.bn1 = nn.BatchNorm2d(wide) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(wide, c, 3, padding=1, bias=not norm)
        self.bn2 = nn.BatchNorm2d(c) if norm else nn.Identity()
        self.project = nn.Conv2d(c, c, 1) if project else None
        self.how = how

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.project is not None:
            x = self.project(x)
        if self.how == "in place":
            y += x
            return F.relu(y)
        return F.relu(x + y if self.how == "reversed" else y + x)


class Net(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def made(*blocks):
    """A network in eval mode whose batch norms have the statistics of its own images."""
    model = Net(blocks)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of the last pass alone
    with torch.no_grad():
        model.train()(photos(64, seed=9))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def photos(count, seed=0):
    """Images with correlated neighbours, as photographs have them."""
    noise = torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise, 3, 1) * 3


def halved(model, images, share=0.5):
    """The structure, the network with the first half of every inner unit, and what is kept."""
    structure = autoprune.find_structure(model, images[:2])
    inner = [unit for unit in structure.units if unit.name.endswith("conv1")]
    positions = {unit.name: np.arange(int(unit.width * share)) for unit in inner}
    small = cut(model, structure, positions)
    return structure, small, kept_indices(structure.units, positions, named_tensors(model))


def repaired(model, images, share=0.5):
    structure, small, indices = halved(model, images, share)
    reference = make_reference(model, structure, [(part,) for part in images.split(32)])
    result = compensate(small, structure, reference, indices)
    return small, result


def error(model, small, images):
    with torch.no_grad():
        return float((model(images) - small(images)).square().mean())


@functools.cache
def analysed(kind):
    """A network of one pattern with its example and structure; the tests that share it leave it as it is."""
    model = network([kind], HEADS[0] if kind in PATTERNS else SEQUENCE_HEADS[0])
    example = example_of(model)
    return model, example, autoprune.find_structure(model, example)


@pytest.mark.parametrize("kind", [*PATTERNS, *SEQUENCES])
def test_a_whole_network_is_left_alone(kind):
    model, example, structure = analysed(kind)
    copy = cut(model, structure, {})
    expected = copy(example)
    compensate(copy, structure, make_reference(model, structure, [(example,)]), {})
    torch.testing.assert_close(copy(example), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [*PATTERNS, *SEQUENCES])
def test_every_pattern_can_be_pruned_and_fitted(kind):
    model, example, structure = analysed(kind)
    positions = some_positions(structure, seed=3)
    small = cut(model, structure, positions)
    indices = kept_indices(structure.units, positions, named_tensors(model))
    before = fingerprint(model)
    result = compensate(small, structure, make_reference(model, structure, [(example,)]), indices)
    assert same(before, fingerprint(model))
    assert all(torch.isfinite(tensor).all() for tensor in named_tensors(small).values())
    assert all(left >= 0 for left in result.unexplained.values())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in small.modules())


@pytest.mark.parametrize(
    "block",
    [
        {},
        {"norm": False},
        {"how": "in place"},
        {"how": "reversed"},
        {"project": True},
    ],
)
def test_the_error_on_other_images_falls(block):
    model = made(Block(**block), Block(**block))
    images = photos(256)
    _, sliced, _ = halved(model, images)
    small, _ = repaired(model, images)
    assert error(model, small, photos(64, seed=1)) < 0.2 * error(model, sliced, photos(64, seed=1))


class Mlp(nn.Module):
    """A block of a transformer without its attention: normalised, widened, narrowed, added."""

    def __init__(self, c: int = 8):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(c), nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x))))


def test_normalised_blocks_of_transformers_are_repaired_on_other_tokens():
    model = nn.Sequential(nn.Linear(5, 8), Mlp(), Mlp(), nn.Linear(8, 3)).eval()
    tokens, others = (torch.randn(count, 6, 5, generator=torch.Generator().manual_seed(count)) for count in (200, 50))
    structure = autoprune.find_structure(model, tokens[:2])
    positions = {name: np.arange(16) for name in ("1.up", "2.up")}
    sliced = cut(model, structure, positions)
    small = cut(model, structure, positions)
    indices = kept_indices(structure.units, positions, named_tensors(model))
    result = compensate(small, structure, make_reference(model, structure, [(tokens,)]), indices)
    assert {"1.down", "2.down", "3"} <= result.unexplained.keys()
    assert error(model, small, others) < 0.2 * error(model, sliced, others)


def test_duplicated_channels_cost_nothing():
    block = Block(wide=8)
    with torch.no_grad():
        for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias):
            tensor[4:] = tensor[:4]
    model = made(block)
    small, result = repaired(model, photos(256))
    assert error(model, small, photos(64, seed=1)) < 1e-6 * float(model(photos(64, seed=1)).detach().var())
    assert result.unexplained["blocks.0.conv2"] < 1e-5


def test_batch_norms_hold_the_statistics_of_what_they_read():
    model = made(Block(), Block())
    images = photos(256)
    small, _ = repaired(model, images)
    with torch.no_grad():
        before = small(images)
        autoprune.recalibrate(small, [(images,)])
        assert float((small(images) - before).square().mean()) < 1e-3 * float(before.var())


def test_outputs_before_a_batch_norm_keep_the_norms_of_their_weights():
    """The rate that suits the trained network then suits the fitted one too."""
    model = made(Block(), Block())
    _, small, _ = halved(model, photos(64))
    fitted, result = repaired(model, photos(64))
    norms = [
        [dict(network.named_modules())[name].weight.flatten(1).norm(dim=1) for name in result.fits if "conv" in name]
        for network in (small, fitted)
    ]
    assert len(norms[0]) >= 4
    torch.testing.assert_close(norms[1], norms[0])


def test_a_batch_norm_in_front_of_its_layer_is_estimated_anew_and_anchored():
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
    pooled = nn.Sequential(first, nn.AvgPool2d(2), nn.BatchNorm2d(8), nn.ReLU(), second, nn.Flatten(), nn.LazyLinear(5))
    images = photos(128)
    pooled(images)
    model = pooled.eval()
    structure = autoprune.find_structure(model, images[:2])
    small = cut(model, structure, {"0": np.arange(4)})
    indices = kept_indices(structure.units, {"0": np.arange(4)}, named_tensors(model))
    compensate(small, structure, make_reference(model, structure, [(images,)]), indices)
    # the first layer keeps its filters, so its statistics are the dense network's own, sample error and all
    torch.testing.assert_close(small[2].running_mean, model[2].running_mean[:4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(small[2].running_var, model[2].running_var[:4], rtol=1e-4, atol=1e-5)


def test_layers_that_cannot_be_fitted_are_named_with_the_reason():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice = nn.Linear(6, 6)
            self.left = nn.Linear(6, 6)
            self.right = nn.Linear(6, 6)
            self.right.weight = self.left.weight
            self.idle = nn.Linear(6, 6)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.right(F.relu(self.left(self.twice(self.twice(x))))))

    model = Odd().eval()
    example = torch.randn(16, 6)
    structure = autoprune.find_structure(model, example)
    result = compensate(cut(model, structure, {}), structure, make_reference(model, structure, [(example,)]), {})
    assert "more than once" in result.untouched["twice"]
    assert "several modules" in result.untouched["left"]
    assert "not called" in result.untouched["idle"]
    assert "head" in result.unexplained


def test_one_image_and_constant_images_leave_finite_weights():
    model = made(Block())
    for given in (photos(1), torch.zeros(8, 3, 10, 10)):
        small, _ = repaired(model, given)
        assert all(torch.isfinite(tensor).all() for tensor in named_tensors(small).values())


def test_nothing_is_written_where_activations_are_not_finite():
    model = made(Block())
    images = photos(64)
    structure, small, indices = halved(model, images)
    reference = make_reference(model, structure, [(images,)])
    with torch.no_grad():
        small.stem.weight[0] = torch.nan
    result = compensate(small, structure, reference, indices)
    assert "cannot be solved" in result.untouched["blocks.0.conv1"]
    assert torch.isfinite(small.blocks[0].conv1.weight).all()


def test_nothing_is_written_where_the_dense_networks_outputs_are_not_finite():
    model = made(Block())
    images = photos(64)
    structure, small, indices = halved(model, images)
    reference = make_reference(model, structure, [(images,)])
    with torch.no_grad():
        reference.model.blocks[0].bn2.bias[2] = torch.inf
    result = compensate(small, structure, reference, indices, jointly=False)
    assert "not finite" in result.untouched["blocks.0.conv2"]
    assert all(torch.isfinite(tensor).all() for tensor in named_tensors(small).values())


def test_half_precision_networks_are_fitted_in_float32():
    model = made(Block(), Block())
    images = photos(128)
    half = made(Block(), Block())
    half.load_state_dict(model.state_dict())
    half.bfloat16()
    structure, small, indices = halved(half, images.bfloat16())
    sliced = error(half, small, photos(64, seed=1).bfloat16())
    reference = make_reference(half, structure, [(images.bfloat16(),)])
    compensate(small, structure, reference, indices)
    assert next(small.parameters()).dtype == torch.bfloat16
    assert error(half, small, photos(64, seed=1).bfloat16()) < 0.5 * sliced


def test_no_layer_runs_on_an_image_before_its_weights_are_final():
    """Each layer of the pruned network runs once on all images for the network itself, and once for the tensors' shape.

    A layer that feeds another one runs on all images twice: with the weights that it is to have alone, from which the
    joint fit starts on some images, and with those of the joint fit.
    """
    model = made(Block())
    structure, small, indices = halved(model, photos(64))
    reference = make_reference(model, structure, [(photos(64),)], effort=Effort(500, 1000, 2))
    ran = []
    forward = nn.Conv2d._conv_forward

    def counted(module, x, weight, bias):
        ran.append((module, len(x), x.is_meta))
        return forward(module, x, weight, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "_conv_forward", counted)
        compensate(small, structure, reference, indices)
    for layer in (small.stem, small.blocks[0].conv1, small.blocks[0].conv2):
        assert [n for module, n, is_meta in ran if module is layer and not is_meta].count(64) == 1


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.ReLU6(inplace=True), nn.Hardtanh(0.0, 1.0)])
def test_inverted_residuals_with_a_ceiling_are_fitted_in_pairs(activation):
    class Inverted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(6, 16, 1, bias=False), nn.BatchNorm2d(16)
            self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
            self.conv3, self.bn3 = nn.Conv2d(16, 6, 1, bias=False), nn.BatchNorm2d(6)

        def forward(self, x):
            y = activation(self.bn1(self.conv1(x)))
            return x + self.bn3(self.conv3(activation(self.bn2(self.conv2(y)))))

    model, images = made(Inverted(), Inverted()), photos(256)
    _, sliced, _ = halved(model, images, 0.7)
    structure, small, indices = halved(model, images, 0.7)  # 11 of 16 channels, each a group of the depthwise layer
    reference = make_reference(model, structure, [(images,)])
    assert reference.layers["blocks.0.conv2"].feeder == "blocks.0.conv1"
    assert reference.layers["blocks.0.conv2"].rectifier.ceiling == activation.max_val
    compensate(small, structure, reference, indices)
    assert error(model, small, photos(64, seed=1)) < 0.3 * error(model, sliced, photos(64, seed=1))


@pytest.mark.parametrize("how", ["plain", "in place", "reversed"])
def test_a_summed_output_that_is_read_elsewhere_too_is_fitted(how):
    class Twice(Block):
        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            aside = y.abs().mean()
            if how == "in place":
                y += x
                return F.relu(y) + aside
            return F.relu(x + y if how == "reversed" else y + x) + aside

    model = made(Twice(), Twice())
    images = photos(256)
    _, sliced, _ = halved(model, images)
    small, result = repaired(model, images)
    assert {"blocks.0.conv1", "blocks.0.conv2"} <= result.unexplained.keys()
    assert error(model, small, photos(64, seed=1)) < 0.3 * error(model, sliced, photos(64, seed=1))


def test_a_layer_that_reads_tokens_before_images_is_left_alone_and_named():
    class TokensFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.down(F.relu(self.up(x.transpose(0, 1)))).transpose(0, 1)

    model, images = TokensFirst().eval(), torch.randn(8, 5, 3)
    structure = autoprune.find_structure(model, images[:1])
    reference = make_reference(model, structure, [(part,) for part in images.split(4)])
    assert not reference.layers
    assert reference.untouched["down"] == "its rows do not belong to examples"


def with_zeros(model, share, seed=0):
    """A copy with that share of every convolution's entries 0, at random, and the names of their weights."""
    structure = autoprune.find_structure(model, photos(2))
    copy = cut(model, structure, {})
    names = [name for name, tensor in named_tensors(copy).items() if tensor.dim() == 4]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in names:
            weight = copy.get_parameter(name)
            weight *= torch.rand(weight.shape, generator=generator) >= share
    return structure, copy, names


@pytest.mark.parametrize("jointly", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_zeros_stay_and_the_error_on_other_images_falls(share, jointly):
    model = made(Block(), Block())
    images, others = photos(256), photos(64, seed=1)
    structure, small, names = with_zeros(model, share)
    masks = {name: small.get_parameter(name) != 0 for name in names}
    before = error(model, small, others)
    reference = make_reference(model, structure, [(images,)])
    result = compensate(small, structure, reference, {}, sparse=names, jointly=jointly)
    assert {name.removesuffix(".weight") for name in names} <= result.unexplained.keys()
    for name, mask in masks.items():
        assert torch.equal(small.get_parameter(name) != 0, mask)
    assert error(model, small, others) < 0.6 * before


@pytest.mark.parametrize("images", [photos(1), torch.zeros(8, 3, 10, 10)], ids=["one", "constant"])
def test_zeros_stay_and_weights_are_finite_whatever_the_images(images):
    model = made(Block())
    structure, small, names = with_zeros(model, 0.8)
    with torch.no_grad():
        small.blocks[0].conv2.weight[2] = 0.0
    masks = {name: small.get_parameter(name) != 0 for name in names}
    reference = make_reference(model, structure, [(images,)])
    compensate(small, structure, reference, {}, sparse=names)
    assert all(torch.isfinite(tensor).all() for tensor in named_tensors(small).values())
    assert not any((small.get_parameter(name)[~mask] != 0).any() for name, mask in masks.items())


@pytest.mark.parametrize("kind", [*PATTERNS, *SEQUENCES])
def test_zeros_stay_in_every_pattern(kind):
    model = network([kind], HEADS[0] if kind in PATTERNS else SEQUENCE_HEADS[0])
    example = images(10) if isinstance(model[0], nn.Conv2d) else words(10)
    structure = autoprune.find_structure(model, example)
    reference = make_reference(model, structure, [(example,)])
    small = cut(model, structure, {})
    weights = {name: named_tensors(small)[f"{name}.weight"] for name in reference.layers}
    with torch.no_grad():
        for weight in weights.values():
            weight[..., ::2] = 0.0
    masks = {name: weight != 0 for name, weight in weights.items()}
    sparse = [f"{name}.weight" for name in weights]
    result = compensate(small, structure, reference, {}, sparse=sparse)
    assert result.unexplained.keys() == weights.keys()
    assert not any((weights[name][~mask] != 0).any() for name, mask in masks.items())
    assert all(torch.isfinite(tensor).all() for tensor in named_tensors(small).values())


def test_a_layer_with_too_many_entries_left_is_named_and_keeps_its_weights(monkeypatch):
    monkeypatch.setattr(compensation, "FACTOR_BYTES", 8 * 6 * 27**2)  # enough for the stem
    model = made(Block())
    structure, small, names = with_zeros(model, 0.3)
    before = small.blocks[0].conv1.weight.clone()
    reference = make_reference(model, structure, [(photos(128),)])
    result = compensate(small, structure, reference, {}, sparse=names)
    assert set(result.unexplained) == {"stem", "head"}
    assert "GiB" in result.untouched["blocks.0.conv1"]
    assert torch.equal(small.blocks[0].conv1.weight, before)


def fitted_in(chunks, model, structure, small, indices, images, **options):
    """A copy of the small network that is fitted with the images in so many chunks."""
    reference = make_reference(model, structure, [(images,)])
    reference = dataclasses.replace(reference, chunks=[(part,) for part in images.tensor_split(chunks)])
    copy = rebuild(small, {}, {})
    compensate(copy, structure, reference, indices, **options)
    return copy


def weights_of(*args, chunks, **options):
    return named_tensors(fitted_in(chunks, *args, **options))


@pytest.mark.parametrize("block", [{}, {"norm": False}, {"how": "in place"}, {"how": "reversed"}, {"project": True}])
def test_chunks_give_what_all_images_at_once_give(block):
    """All rows of all images are used, so that only the order of sums differs."""
    torch.manual_seed(3)  # of networks in which no two ridges are equally good, between which rounding would choose
    model, images = made(Block(**block), Block(**block)), photos(60)
    structure, small, indices = halved(model, images)
    whole, parts = (fitted_in(chunks, model, structure, small, indices, images) for chunks in (1, 7))
    others = photos(64, seed=1)
    assert error(parts, whole, others) < 1e-4 * error(model, whole, others)


def test_activations_on_disk_change_nothing_and_in_half_precision_little(tmp_path, monkeypatch):
    monkeypatch.setattr(activations, "SMALL", 0)
    model, images = made(Block(), Block(project=True)), photos(60)
    structure, small, indices = halved(model, images)
    kept = make_reference(model, structure, [(images,)]).held_bytes
    in_memory, in_half, on_disk = (
        fitted_in(5, model, structure, small, indices, images, spill=tmp_path, kept_bytes=limit)
        for limit in (kept, kept // 2, 1)
    )
    assert all(map(torch.equal, on_disk.state_dict().values(), in_memory.state_dict().values()))
    others = photos(64, seed=1)
    assert 0 < error(in_half, in_memory, others) < 0.01 * error(model, in_memory, others)
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_before_anything_is_fitted(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    model, images = made(Block()), photos(20)
    structure, small, indices = halved(model, images)
    before = fingerprint(small)
    with pytest.raises(DataError, match="GiB on the disk of .*fewer calibration examples or, in .* TMPDIR"):
        compensate(
            small, structure, make_reference(model, structure, [(images,)]), indices, kept_bytes=1, spill=tmp_path
        )
    assert same(before, fingerprint(small))


def test_a_tensor_that_a_module_keeps_between_passes_is_not_put_away(tmp_path, monkeypatch):
    """A pass makes a table that the passes of later chunks read, as rotary embeddings do."""
    monkeypatch.setattr(activations, "SMALL", 0)

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down, self.tables = nn.Linear(6, 24), nn.Linear(24, 6), {}

        def forward(self, x):
            if len(x) not in self.tables:
                self.tables[len(x)] = torch.ones(6).cumsum(0) * 0.1
            return x * self.tables[len(x)] + self.down(F.relu(self.up(x)))

    model, tokens = nn.Sequential(nn.Linear(5, 6), Table(), nn.Linear(6, 3)).eval(), torch.randn(60, 7, 5)
    structure = autoprune.find_structure(model, tokens[:2])
    positions = {"1.up": np.arange(12)}
    small = cut(model, structure, positions)
    indices = kept_indices(structure.units, positions, named_tensors(model))
    one = weights_of(model, structure, small, indices, tokens, chunks=6)
    other = weights_of(model, structure, small, indices, tokens, chunks=6, kept_bytes=1, spill=tmp_path)
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


def test_a_layer_that_only_some_examples_reach_is_named_and_the_others_are_fitted():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.often, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            y = F.gelu(self.stem(x))
            if x[0, 0] > 0:
                y = y + self.often(y)
            return self.head(y)

    model, rows = Routed().eval(), torch.randn(40, 4)
    rows[:20, 0], rows[20:, 0] = 1.0, -1.0
    structure = autoprune.find_structure(model, rows[:1])
    reference = make_reference(model, structure, [(rows,)])
    reference = dataclasses.replace(reference, chunks=[(rows[:20],), (rows[20:],)])
    result = compensate(cut(model, structure, {}), structure, reference, {})
    assert "for all examples" in result.untouched["often"]
    assert {"stem", "head"} <= result.fits.keys()


def test_batches_of_several_lengths_are_all_used():
    model = nn.Sequential(nn.Linear(5, 8), Mlp(), nn.Linear(8, 3)).eval()
    short, long, others = torch.randn(40, 6, 5), torch.randn(30, 9, 5), torch.randn(50, 6, 5)
    structure = autoprune.find_structure(model, short[:2])
    positions = {"1.up": np.arange(12)}
    sliced, small = cut(model, structure, positions), cut(model, structure, positions)
    indices = kept_indices(structure.units, positions, named_tensors(model))
    reference = make_reference(model, structure, [(short[:20],), (long,), (short[20:],)])
    result = compensate(small, structure, reference, indices)
    assert result.fits["1.down"].rows == 40 * 6 + 30 * 9
    assert error(model, small, others) < 0.2 * error(model, sliced, others)


def test_a_layer_with_fewer_rows_than_columns_is_no_worse_on_other_examples():
    """A classifier of 200 inputs on 40 examples: the fit with the ridge of convolutions repeats these examples."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 200), nn.Tanh(), nn.Linear(200, 5)).eval()
    rows, others = (torch.randn(count, 6, generator=generator) for count in (40, 500))
    structure = autoprune.find_structure(model, rows[:2])
    positions = {"0": np.arange(60)}
    sliced, small = cut(model, structure, positions), cut(model, structure, positions)
    indices = kept_indices(structure.units, positions, named_tensors(model))
    result = compensate(small, structure, make_reference(model, structure, [(rows,)]), indices)
    assert result.fits["2"].rows < result.fits["2"].columns
    assert error(model, small, others) < error(model, sliced, others)


def test_layers_whose_rows_lose_positions_are_left_as_they_are():
    """Of a pair of linears over the tokens, whose rows are the channels."""
    model = network((TokensMixed,), MeanOfTokens)
    example = example_of(model)
    structure = find_structure(model, example)
    positions = {"0": np.arange(2), "1.widen": np.arange(3)}
    small = cut(model, structure, positions)
    indices = kept_indices(structure.units, positions, named_tensors(model))
    result = compensate(small, structure, make_reference(model, structure, [(words(12),)]), indices)
    assert "not those of the dense network" in result.untouched["1.widen"]
    assert small(example).isfinite().all()


class Residual(nn.Module):
    """A linear layer beside a shortcut; with `twice`, a second one that reads the same tensor."""

    def __init__(self, c: int = 8, *, twice: bool = False):
        super().__init__()
        self.fc, self.also = nn.Linear(c, c), nn.Linear(c, c) if twice else None

    def forward(self, x):
        return x + self.fc(x) if self.also is None else x + self.fc(x) + self.also(x)


@pytest.mark.parametrize("gone", [("2.fc/branch",), ("2.fc/branch", "3.fc/branch")])
def test_a_layer_takes_up_what_is_linear_in_removed_branches_behind_it(gone):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), Residual(), Residual(), Residual()).eval()
    tokens, others = torch.randn(64, 4, 5), torch.randn(16, 4, 5)
    structure = autoprune.find_structure(model, tokens[:2])
    small = cut(model, structure, {name: np.arange(0) for name in gone})
    with torch.no_grad():
        assert not torch.allclose(small(others), model(others), atol=0.1)
        compensate(small, structure, make_reference(model, structure, [(tokens,)]), {})
        torch.testing.assert_close(small(others), model(others), rtol=1e-3, atol=1e-3)


def test_a_sum_that_a_layer_still_reads_stays_the_target():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), Residual(), Residual(twice=True)).eval()
    tokens = torch.randn(8, 4, 5)
    targets = make_reference(model, autoprune.find_structure(model, tokens[:2]), [(tokens,)]).layers
    assert (targets["2.fc"].onto, targets["2.also"].onto) == ("1.fc", "2.fc")
    assert behind_gaps(targets, ["0", "1.fc", "2.also"]) == {"1.fc": "2.fc"}
    assert behind_gaps(targets, ["0", "1.fc", "2.fc"]) == {"2.fc": "2.also"}
    assert behind_gaps(targets, ["0", "1.fc"]) == {"1.fc": "2.also"}
