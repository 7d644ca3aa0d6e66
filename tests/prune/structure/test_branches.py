"""Branches of additions: which are found, what is left when they go, and what that costs."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from networks import counted_macs, counted_params, fingerprint, same
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.core.unit import Unit
from autoprune.errors import SpaceError
from autoprune.prune.modules.skip import Skip
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.surgery import make_recipe
from autoprune.prune.surgery.verify import demote_wrong_units

WIDTH = 6


def image() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def branch(width: int = WIDTH, inner: int = 5, **options) -> nn.Sequential:
    relu = nn.ReLU(inplace=True)
    layers = (nn.Conv2d(width, inner, 3, padding=1, **options), nn.BatchNorm2d(inner), relu)
    return nn.Sequential(*layers, nn.Conv2d(inner, width, 1), nn.BatchNorm2d(width))


class Net(nn.Module):
    """A body of WIDTH channels between a convolution and a head."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(WIDTH, 4)
        for norm in (m for m in self.modules() if isinstance(m, nn.BatchNorm2d)):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Block(nn.Module):
    """x + f(x), or what a test makes of the two in `join`; `without` is the same with nothing from f."""

    def __init__(self, inside: nn.Module | None = None) -> None:
        super().__init__()
        self.f = branch() if inside is None else inside

    def join(self, x, y):
        return x + y

    def forward(self, x):
        return self.join(x, self.f(x))

    def without(self, x):
        return x


class Basic(Block):
    """The block of a ResNet: one activation in place, on the sum as well, which itself is written in place."""

    def __init__(self):
        super().__init__(nn.Identity())
        self.conv1, self.bn1 = nn.Conv2d(WIDTH, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        shortcut = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += shortcut
        return self.relu(out)

    def without(self, x):
        return torch.relu(x)


class InPlace(Block):
    def join(self, x, y):
        y += x
        return y


class OntoTheShortcut(Block):
    def forward(self, x):
        y = self.f(x)
        x += y
        return x


class Scaled(Block):
    """A scale that belongs to the block, as in ConvNeXt, and an addition with a factor."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(WIDTH, 1, 1) + 0.5)

    def join(self, x, y):
        return torch.add(x, self.gamma * y, alpha=2)


class Keywords(nn.Module):
    """Gives its result first in a tuple or list, beside an unused value."""

    def __init__(self, kind):
        super().__init__()
        self.linear, self.kind = nn.Linear(WIDTH, WIDTH), kind

    def forward(self, mask=None, *, hidden):
        y = self.linear(hidden)
        return self.kind((y, y.mean(), None))


class Tuples(Block):
    """Channels last, a normalisation before, arguments by name."""

    def __init__(self, kind=tuple):
        super().__init__(Keywords(kind))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x):
        y, *_ = self.f(mask=None, hidden=self.norm(x.movedim(1, -1)))
        return x + y.movedim(-1, 1)


class Lists(Tuples):
    def __init__(self):
        super().__init__(list)


SIMPLE = [Block, Basic, InPlace, OntoTheShortcut, Scaled, Tuples, Lists]


def branches(structure) -> list[Unit]:
    return [unit for unit in structure.units if unit.kind == "branches"]


def found(model):
    return branches(autoprune.find_structure(model, image()))


@pytest.mark.parametrize("kind", SIMPLE)
def test_what_is_left_is_the_network_without_the_branch(kind):
    model = Net(kind(), Block())
    before = fingerprint(model)
    structure = autoprune.find_structure(model, image())
    first, second = branches(structure)
    expected = copy.deepcopy(model)
    expected.body[0].forward = expected.body[0].without
    small = autoprune.shrink(model, structure, {first.name: 0})
    torch.testing.assert_close(small(image()), expected(image()), rtol=0, atol=0)
    both = autoprune.shrink(model, structure, {first.name: [], second.name: 0})
    torch.testing.assert_close(both.body[1:](image()), image(), rtol=0, atol=0)
    assert autoprune.verify(model, both, structure, image()).ok
    assert same(before, fingerprint(model))


@pytest.mark.parametrize("kind", SIMPLE)
def test_costs_without_the_branch_are_what_is_counted(kind):
    model = Net(kind(), Block())
    structure = autoprune.find_structure(model, image())
    names = [unit.name for unit in branches(structure)]
    assert len(names) == 2
    rows = np.array(list(itertools.product((0, 1), repeat=2)))
    costs = structure.cost.evaluate(names, rows)
    for row, macs, params in zip(rows.tolist(), costs["macs"], costs["params"], strict=True):
        small = autoprune.shrink(model, structure, dict(zip(names, row, strict=True)))
        assert (counted_macs(small, image()), counted_params(small)) == (macs, params)


def test_a_branch_is_one_position_that_may_go_and_names_its_modules():
    (unit,) = found(Net(Basic()))
    assert (unit.name, unit.width, unit.least, unit.normalised) == ("body.0.bn2/branch", 1, 0, False)
    assert unit.modules == ("body.0.conv1", "body.0.bn1", "body.0.conv2", "body.0.bn2")
    assert {slot.role for slot in unit.slots} == {"along"}
    assert Unit.from_json(unit.to_json()) == unit


def test_amounts_keep_or_remove_a_branch():
    model = Net(Block())
    structure = autoprune.find_structure(model, image())
    name = branches(structure)[0].name
    for amount, stays in ((0.5, True), (0.01, True), (1, True), ([0], True), (0, False), ([], False)):
        small = autoprune.shrink(model, structure, {name: amount})
        assert isinstance(small.body[0].f, nn.Sequential) is stays
    whole = autoprune.shrink(model, structure, 0.5)
    assert list(whole.state_dict()) == list(model.state_dict())
    with pytest.raises(SpaceError, match="has 1 positions: expected a fraction in .* or a count from 0 to 1 to keep"):
        autoprune.shrink(model, structure, {name: 2})
    with pytest.raises(SpaceError, match="expected at least 1 to stay"):
        autoprune.shrink(model, structure, {"stem": []})


def test_channels_and_branches_go_together():
    model = Net(Basic(), Tuples(), Block(), Scaled())
    structure = autoprune.find_structure(model, image())
    names = [unit.name for unit in structure.units]
    least, widths = (np.array([getattr(unit, end) for unit in structure.units]) for end in ("least", "width"))
    rows = np.random.default_rng(0).integers(least, widths + 1, (20, len(names)))
    assert len(branches(structure)) == 4
    assert len(names) > 7
    costs = structure.cost.evaluate(names, rows)
    for row, macs, params in zip(rows.tolist(), costs["macs"], costs["params"], strict=True):
        small = autoprune.shrink(model, structure, dict(zip(names, row, strict=True)))
        assert autoprune.verify(model, small, structure, image()).ok
        assert (counted_macs(small, image()), counted_params(small)) == (macs, params)


def test_a_branch_inside_a_branch_goes_with_it():
    model = Net(Block(nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), Block(), nn.Conv2d(WIDTH, WIDTH, 1))))
    structure = autoprune.find_structure(model, image())
    inner, outer = (unit.name for unit in branches(structure))
    assert (inner, outer) == ("body.0.f.1.f/branch", "body.0.f/branch")
    rows = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # of inner and outer
    params = structure.cost.evaluate([inner, outer], rows)["params"]
    assert params[0] == params[2] < params[1] < params[3]
    for row, count in zip(rows.tolist(), params, strict=True):
        small = autoprune.shrink(model, structure, {inner: row[0], outer: row[1]})
        assert counted_params(small) == count
        assert autoprune.verify(model, small, structure, image()).ok


def test_a_wrong_branch_is_found_inside_a_right_one():
    """Both are never tried at once: the outer one would hide what is wrong with the inner one."""
    model = Net(Block(nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), Shifted(), nn.Conv2d(WIDTH, WIDTH, 1))))
    for seed in range(6):
        structure = demote_wrong_units(model, trace(model, image()), image(), seed)
        assert [unit.name for unit in branches(structure)] == ["body.0.f/branch"]


class Shifted(Block):
    """What is added is 1 where f gives 0."""

    def join(self, x, y):
        return x + torch.exp(y)


class Halves(Block):
    """Twice as many channels on the way, folded by a size written into the forward."""

    def __init__(self):
        super().__init__(nn.Conv2d(WIDTH, 2 * WIDTH, 1))

    def join(self, x, y):
        return x + y.reshape(len(y), 2, 6, 8, 8).sum(1)


@pytest.mark.parametrize(("kind", "reason"), [(Shifted, "outputs differ by"), (Halves, "does not run with fewer")])
def test_a_branch_that_zeros_do_not_pass_is_frozen_with_what_happened(kind, reason):
    structure = autoprune.find_structure(Net(kind()), image())
    assert not branches(structure)
    assert not structure.branches
    (row,) = (row for row in structure.frozen if row.what == "body.0.f/branch")
    assert reason in row.reason
    assert "/branch" not in str(structure.cost.costs)


class Downsample(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Conv2d(WIDTH, 8, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(WIDTH, 8, 1, stride=2)
        self.back = nn.Conv2d(8, WIDTH, 1)

    def forward(self, x):
        return self.back(self.f(x) + self.shortcut(x))


class Twice(Block):
    def forward(self, x):
        return x + self.f(x + self.f(x))


class Used(Block):
    """The branch's result is read a second time."""

    def forward(self, x):
        y = self.f(x)
        return (x + y) * y


class Tied(Block):
    """The weight is also that of a layer on the main path."""

    def __init__(self):
        super().__init__(nn.Conv2d(WIDTH, WIDTH, 1))
        self.after = nn.Conv2d(WIDTH, WIDTH, 1)
        self.after.weight = self.f.weight

    def forward(self, x):
        return self.after(x + self.f(x))


class Broadcast(Block):
    def forward(self, x):
        return x + self.f(x).mean((2, 3), keepdim=True)


class Constant(Block):
    """What it is added to is no activation."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(2, WIDTH, 8, 8))

    def forward(self, x):
        return self.position + self.f(x)


class Mapped(Block):
    """The module returns a mapping."""

    def __init__(self):
        super().__init__(Keywords(lambda parts: {"hidden": parts[0]}))

    def forward(self, x):
        return x + self.f(hidden=x.movedim(1, -1))["hidden"].movedim(-1, 1)


class OwnProduct(Block):
    """A product on the way that belongs to no module of the branch."""

    def forward(self, x):
        y = self.f(x).flatten(2)
        return x + (torch.softmax(y @ y.mT, -1) @ y).reshape(x.shape)


class NormOnly(Block):
    """Nothing in it costs anything."""

    def __init__(self):
        super().__init__(nn.BatchNorm2d(WIDTH))


@pytest.mark.parametrize(
    "kind", [Downsample, Twice, Used, Tied, Broadcast, Constant, Mapped, OwnProduct, NormOnly], ids=lambda k: k.__name__
)
def test_what_cannot_go_alone_is_no_branch(kind):
    structure = autoprune.find_structure(Net(kind()), image())
    assert not branches(structure)
    assert not any("/branch" in row.what for row in structure.frozen)


class Sum(nn.Module):
    """RepVGG: convolutions of two sizes and a normalisation, added up."""

    def __init__(self):
        super().__init__()
        self.large, self.small = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 1)
        self.bn = nn.BatchNorm2d(WIDTH)

    def forward(self, x):
        return torch.relu(self.large(x) + self.small(x) + self.bn(x))


def test_both_operands_of_an_addition_may_go_each_for_itself():
    model = Net(Sum())
    structure = autoprune.find_structure(model, image())
    assert [unit.name for unit in branches(structure)] == ["body.0.large/branch", "body.0.small/branch"]
    x = model.stem(image())
    small = autoprune.shrink(model, structure, {"body.0.large/branch": 0})
    torch.testing.assert_close(small.body(x), torch.relu(model.body[0].small(x) + model.body[0].bn(x)))
    none = autoprune.shrink(model, structure, dict.fromkeys(("body.0.large/branch", "body.0.small/branch"), 0))
    torch.testing.assert_close(none.body(x), torch.relu(model.body[0].bn(x)))


class Parallel(nn.Module):
    """One normalisation for two branches, as in GPT-J: it stays while either of them does."""

    def __init__(self):
        super().__init__()
        self.norm, self.a, self.b = nn.BatchNorm2d(WIDTH), branch(), branch()

    def forward(self, x):
        y = self.norm(x)
        return x + self.a(y) + self.b(y)


def test_what_two_branches_share_stays():
    model = Net(Parallel())
    structure = autoprune.find_structure(model, image())
    assert [unit.name for unit in branches(structure)] == ["body.0.a/branch", "body.0.b/branch"]
    assert all(unit.modules[0].startswith("body.0.") and len(unit.modules) == 4 for unit in branches(structure))
    x = model.stem(image())
    small = autoprune.shrink(model, structure, {"body.0.a/branch": 0})
    torch.testing.assert_close(small.body(x), x + model.body[0].b(model.body[0].norm(x)))


def test_an_activation_in_place_behind_a_removed_layer_leaves_the_shortcut_alone():
    model = Net(Block(nn.Sequential(nn.Conv2d(WIDTH, 5, 1), nn.ReLU(inplace=True), nn.Conv2d(5, WIDTH, 1))))
    inline = Net(Inline(model.body[0].f))
    structure = autoprune.find_structure(inline, image())
    (unit,) = branches(structure)
    x = inline.stem(image())
    assert bool((x < 0).any())
    small = autoprune.shrink(inline, structure, {unit.name: 0})
    torch.testing.assert_close(small.body(x.clone()), x, rtol=0, atol=0)


class Inline(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.first, self.act, self.second = layers

    def forward(self, x):
        return x + self.second(self.act(self.first(x)))


def test_attention_and_feed_forward_of_a_transformer_are_branches():
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True)
    model = nn.Sequential(nn.Linear(5, 8), layer, nn.Linear(8, 3)).eval()
    x = torch.randn(2, 4, 5)
    structure = autoprune.find_structure(model, x)
    attention, feed = (unit.name for unit in branches(structure))
    assert (attention, feed) == ("1.self_attn/branch", "1.linear2/branch")
    small = autoprune.shrink(model, structure, {attention: 0, feed: 0})
    torch.testing.assert_close(small(x), model[2](model[0](x)))


def test_the_recipe_says_what_is_skipped_as_plain_data():
    model = Net(Tuples())
    structure = autoprune.find_structure(model, image())
    assert pickle.loads(pickle.dumps(structure)) == structure
    recipe = make_recipe(structure, {branches(structure)[0].name: np.array([], dtype=np.int64)})
    assert recipe.skipped == {"body.0.norm": 0, "body.0.f": 3}
    assert make_recipe(structure, {}).skipped == {}


def test_a_skip_gives_zeros_like_the_first_tensor_and_keeps_the_mode():
    model = Net(Tuples()).train()
    structure = autoprune.find_structure(model, image())
    small = autoprune.shrink(model, structure, {branches(structure)[0].name: 0})
    skip = pickle.loads(pickle.dumps(small.body[0].f))
    zeros, *rest = skip(None, hidden=torch.ones(2, 3))
    assert torch.equal(zeros, torch.zeros(2, 3))
    assert rest == [None, None]
    assert skip.training
    assert not small.body[0].norm.state_dict()
    assert torch.equal(Skip()(torch.ones(4), torch.ones(2)), torch.zeros(4))


def test_what_was_made_smaller_is_analysed_and_made_smaller_again():
    model = Net(Block(), Tuples())
    structure = autoprune.find_structure(model, image())
    small = autoprune.shrink(model, structure, {branches(structure)[1].name: 0, "stem": 4})
    again = autoprune.find_structure(small, image())
    assert [unit.name for unit in branches(again)] == ["body.0.f/branch"]
    assert again.cost.dense()["params"] == counted_params(small)


def test_half_precision_and_the_meta_device_have_the_same_branches():
    names = [unit.name for unit in found(Net(Block(), Basic()))]
    half = autoprune.find_structure(Net(Block(), Basic()).bfloat16(), image().bfloat16())
    assert [unit.name for unit in branches(half)] == names
    meta = autoprune.find_structure(Net(Block(), Basic()).to("meta"), image().to("meta"))
    assert [unit.name for unit in branches(meta)] == names


def test_a_function_of_the_module_after_the_branch_is_no_module_of_it():
    class Activated(Block):
        def join(self, x, y):
            return x + F.relu(y)

    model = Net(Activated())
    (unit,) = found(model)
    assert unit.name == "body.0.f/branch"
