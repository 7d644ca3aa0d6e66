"""What tracing finds, what it freezes and why, and that it leaves no trace of its own."""

from __future__ import annotations

import re

import pytest
import torch
from networks import Grouped, MeanHead, Plain, PooledHead, Prelu, Residual, fingerprint, images, network, same
from torch import nn
from torch.nn import functional as F

from autoprune.errors import UnsupportedModel
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.surgery import cut
from autoprune.prune.surgery.verify import demote_wrong_units, verify_positions


class Between(nn.Module):
    """Two convolutions with anything between them."""

    def __init__(self, between, after=8):
        super().__init__()
        self.first, self.second, self.between = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(after, 4, 1), between

    def forward(self, x):
        return self.second(self.between(self.first(x)))


def structure_of(between, after=8):
    return trace(Between(between, after), images())


def reason(structure):
    """Why the first convolution is frozen."""
    assert structure.units == ()
    return next(row.reason for row in structure.frozen if row.what == "first")


KEPT = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "hardswish in place": lambda x: F.hardswish(x, inplace=True),
    "mish in place": lambda x: F.mish(x, inplace=True),
    "max pooling": lambda x: F.max_pool2d(x, 2),
    "max pooling without batch": lambda x: torch.cat([F.max_pool2d(image, 2).unsqueeze(0) for image in [x.mean(0)]]),
    "adaptive max pooling": lambda x: F.adaptive_max_pool2d(x, 2),
    "average pooling": lambda x: F.avg_pool2d(x, 2),
    "one-dimensional pooling": lambda x: F.max_pool1d(x.flatten(2), 2).unsqueeze(-1),
    "resampling": lambda x: F.interpolate(x, scale_factor=2),
    "mean of pixels": lambda x: x - x.mean((2, 3), keepdim=True),
    "channels last and back": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "all of a slice": lambda x: x[:, :8],
    "constant padding of pixels": lambda x: F.pad(x, (1, 1)),
    "a constant": lambda x: x * 0.5 + 1,
    "a choice": lambda x: torch.where(x > 0, x, -x),
    "instance norm": F.instance_norm,
}


@pytest.mark.parametrize("name", KEPT)
def test_operators_that_leave_channels_alone_leave_the_unit(name):
    model, x = Between(KEPT[name]), images()
    structure = trace(model, x)
    assert [(unit.name, unit.width) for unit in structure.units] == [("first", 8)]
    assert structure.uncounted == ()
    assert demote_wrong_units(model, structure, x) == structure


REDUCED = {
    "softmax": lambda x: x.softmax(1),
    "mean of channels": lambda x: x - x.mean(1, keepdim=True),
    "mean of everything": lambda x: x - x.mean(),
    "variance": lambda x: x * x.var(1, keepdim=True, correction=0),
    "maximum of channels": lambda x: x - x.amax(1, keepdim=True),
    "length": lambda x: F.normalize(x, dim=1),
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2),
    "maximum of channels by max": lambda x: x - x.max(1, keepdim=True)[0],
    "minimum of channels by min": lambda x: x - torch.min(x, 1, keepdim=True).values,
    "both": lambda x: x - sum(torch.aminmax(x, dim=1, keepdim=True)),
    "largest of all": lambda x: x / x.max(),
    "median": lambda x: x - x.median(1, keepdim=True).values,
    "second smallest": lambda x: x - x.kthvalue(2, 1, keepdim=True).values,
    "most frequent": lambda x: x - x.round().mode(1, keepdim=True).values,
    "mean of the two largest": lambda x: x - x.topk(2, 1).values.mean(1, keepdim=True),
    "running sum": lambda x: x.cumsum(1),
    "running product": lambda x: x.cumprod(1),
    "running maximum": lambda x: x.cummax(1).values,
    "running logarithm of a sum": lambda x: x.logcumsumexp(1),
    "one group": lambda x: F.group_norm(x, 1),
}


@pytest.mark.parametrize("name", REDUCED)
def test_operators_that_reduce_channels_leave_a_unit_that_says_so(name):
    model, x = Between(REDUCED[name]), images()
    structure = trace(model, x)
    assert [(unit.name, unit.width, unit.normalised) for unit in structure.units] == [("first", 8, True)]
    assert demote_wrong_units(model, structure, x) == structure
    report = verify_positions(model, cut(model, structure, {"first": [1, 4, 6]}), structure, {"first": [1, 4, 6]}, x)
    assert report.ok
    assert report.normalised == ("first",)
    assert "normalisations run over the positions that stay" in report.compared


def test_whole_groups_of_a_normalisation_go_without_a_trace_and_positions_in_them_do_not():
    model, x = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 1)), images()
    structure = trace(model, x)
    assert demote_wrong_units(model, structure, x) == structure
    assert [(unit.width, unit.normalised) for unit in structure.units] == [(2, False), (4, True)]


FROZEN = {
    "where the largest is, as a number": (
        lambda x: x * x.max(1, keepdim=True)[1],
        "operator mul in 'the top module' at prune/structure/test_trace.py:",
    ),
    "where the largest is, to look it up": (
        lambda x: x + x.gather(1, x.min(1, keepdim=True).indices),
        "gets the indices that operator min in 'the top module' at ",
    ),
    "where the largest is, on its own": (lambda x: x * x.argmax(1, keepdim=True), "that operator argmax in"),
    "where the largest so far is": (lambda x: x * x.cummax(1)[1], "that operator cummax in"),
    "where the median is": (lambda x: x * x.median(1, keepdim=True).indices, "that operator median in"),
    "ranks": (lambda x: x.sort(1).values, "sorted by operator sort in"),
    "ranks by index": (lambda x: x * x.argsort(1), "sorted by operator"),
    "a part that is put back": (lambda x: F.pad(x[:, :4], (0, 0, 0, 0, 2, 2)), "has the fixed size 4"),
    "cropping": (lambda x: F.pad(x, (0, 0, 0, 0, -2, 2)), "cropped by operator constant_pad_nd"),
    "every third channel": (lambda x: F.pad(x[:, ::3], (0, 0, 0, 0, 2, 3)), "strided by operator slice"),
    "a constant per channel": (lambda x: x * torch.ones(8, 1, 1), "has the fixed size 8"),
    "an order": (lambda x: x.flip(1), "operator flip in 'the top module' at "),
    "a place": (lambda x: x.roll(1, 1), "rolled by operator roll"),
    "an index": (lambda x: x[:, torch.arange(8)], "indexed by operator index"),
    "a fixed width": (lambda x: x.view(-1, 8, 36).unsqueeze(-1), "has the fixed size 8"),
    "no rule": (
        lambda x: x.renorm(2, 1, 1.0),
        "no rule for operator renorm in 'the top module' at prune/structure/",
    ),
}


@pytest.mark.parametrize("name", FROZEN)
def test_operators_that_depend_on_which_channel_is_which_freeze_them_with_the_reason(name):
    between, expected = FROZEN[name]
    assert expected in reason(structure_of(between))


def test_the_channels_behind_a_chosen_one_may_go():
    """x[:, 3:4] needs the first four where they are; the others are free."""
    structure = structure_of(lambda x: x + x[:, 3:4])
    assert [(unit.width, unit.slots[0].span.offset) for unit in structure.units] == [(4, 4)]
    assert demote_wrong_units(Between(lambda x: x + x[:, 3:4]), structure, images()) == structure


def test_operators_without_a_rule_are_listed_as_uncounted():
    assert structure_of(lambda x: torch.linalg.qr(x.renorm(2, 1, 1.0))[0]).uncounted == ("renorm", "linalg_qr")


def test_an_operator_is_reported_with_the_module_that_calls_it():
    class Renorm(nn.Module):
        def forward(self, x):
            return x.renorm(2, 1, 1.0)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(Renorm()), nn.Conv2d(4, 2, 1))
    assert "operator renorm in '1.0' at prune/structure/test_trace.py:" in trace(model, images()).frozen[0].reason


def test_what_the_model_takes_and_returns_is_frozen():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            features = F.relu(self.first(x))
            return {"features": features, "logits": self.second(features)}

    structure = trace(Both(), images())
    assert reason(structure) == "model input; model output"
    assert sum(row.share for row in structure.frozen) == pytest.approx(1)


def test_an_output_returned_beside_its_batch_norm_is_not_read_by_the_batch_norm_alone():
    class Raw(nn.Module):
        def __init__(self, raw):
            super().__init__()
            self.first, self.conv, self.bn, self.raw = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), raw

        def forward(self, x):
            y = self.conv(F.relu(self.first(x)))
            return (y, self.bn(y)) if self.raw else self.bn(y)

    assert trace(Raw(False).eval(), images()).batch_norms == {"conv": "bn"}
    assert trace(Raw(True).eval(), images()).batch_norms == {}


def test_a_batch_norm_whose_input_another_operator_reads_is_not_alone():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return self.bn(y) + y

    assert trace(Twice().eval(), images()).batch_norms == {}


def test_units_are_named_by_the_module_that_makes_them():
    model = network([Residual, Plain], PooledHead)
    names = {unit.name: unit.width for unit in trace(model, images()).units}
    assert names == {"0": 4, "1.conv1": 5, "2.conv": 6, "1.bn2/branch": 1}


def test_several_units_of_one_module_are_numbered():
    names = [unit.name for unit in trace(network([Grouped], MeanHead), images()).units]
    assert len(set(names)) == len(names)
    assert any("/" in name for name in names)


def test_units_of_tensors_in_the_model_itself_are_named_by_the_tensor():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.leave = nn.Parameter(torch.randn(6, 3)), nn.Parameter(torch.randn(2, 6))

        def forward(self, x):
            return F.linear(F.relu(F.linear(x, self.enter)), self.leave)

    model, x = Bare(), torch.randn(5, 3)
    structure = trace(model, x)
    assert [unit.name for unit in structure.units] == ["enter"]
    assert cut(model, structure, {"enter": [0, 2]}).enter.shape == (2, 3)


def test_a_bias_that_is_an_activation_ties_every_dimension_it_is_added_to():
    """addmm(y, w, z): rows of y and of the product are the same, here the prunable ones."""

    class Columns(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.randn(6, 3)) for _ in range(2))
            self.out = nn.Parameter(torch.randn(2, 6))

        def forward(self, x):
            y = torch.addmm(self.a @ x, self.b, x)
            return self.out @ F.relu(y)

    model, x = Columns(), torch.randn(3, 5)
    structure = trace(model, x)
    assert [(unit.width, len(unit.slots)) for unit in structure.units] == [(6, 3)]
    assert demote_wrong_units(model, structure, x) == structure


class HardCoded(nn.Module):
    """A forward that relies on the number of channels, in a way only a run shows."""

    def __init__(self, runs):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1), nn.Conv2d(4, 4, 1)
        self.runs = runs

    def forward(self, x):
        y = F.relu(self.first(x))
        channels = len(y[0])
        if not self.runs and channels < 16:
            raise ValueError("wanted 16 channels")
        y = self.second(y * (16 / channels))
        return self.third(F.relu(y))


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (
            False,
            r"does not run with fewer positions: ValueError at prune/structure/test_trace.py:\d+: wanted 16 channels",
        ),
        (True, "outputs differ by"),
    ],
)
def test_a_forward_that_hard_codes_a_width_loses_that_unit_with_the_line_as_reason(runs, expected):
    model, x = HardCoded(runs), images()
    found = trace(model, x)
    assert [unit.name for unit in found.units] == ["first", "second"]
    trusted = demote_wrong_units(model, found, x)
    assert [unit.name for unit in trusted.units] == ["second"]
    row = trusted.frozen[-1]
    assert row.what == "first"
    assert re.search(expected, row.reason)
    assert trusted.cost.dense() == found.cost.dense()


@pytest.mark.parametrize("between", [lambda x: x.sum(1, True) / x.shape[1] + x, lambda x: x * x.shape[1]])
def test_a_forward_that_computes_with_a_width_keeps_it_with_the_line_as_reason(between):
    assert re.search(r"test_trace.py:\d+ computes with its size", reason(structure_of(between)))


def test_units_that_are_right_alone_and_wrong_together_lose_the_later_one():
    class Together(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            y = F.relu(self.a(x))
            z = self.b(y)
            return self.c(F.relu(z)) * (2.0 if z.shape[1] < 8 and y.shape[1] < 8 else 1.0)

    model, x = Together(), images()
    trusted = demote_wrong_units(model, trace(model, x), x)
    assert [unit.name for unit in trusted.units] == ["a"]
    assert [row.what for row in trusted.frozen] == ["b"]
    assert "together with other units: pruned and masked outputs differ" in trusted.frozen[0].reason


def test_a_structure_tells_the_share_of_a_cost_that_goes_with_a_unit():
    structure = trace(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 5, 1)), images())
    assert structure.share("0") == pytest.approx((3 * 8 + 8 * 2) / (3 * 8 + 8 * 2 + 2 * 5))
    demoted = structure.demote({"0": "because"}).demote({"1": "also"})
    assert [(row.what, row.reason) for row in demoted.frozen] == [("0", "because"), ("1", "also")]
    assert sum(row.share for row in demoted.frozen) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"no unit is called '0'; units are \['1'\]"):
        structure.demote({"0": "because"}).unit("0")


@pytest.mark.parametrize("training", [True, False])
def test_tracing_leaves_the_model_as_it_was(training):
    model = network([Residual, Prelu], PooledHead).train(training)
    model[1].bn1.eval()  # a mode of its own
    model.register_forward_hook(lambda module, args, output: output * 2)
    before = fingerprint(model)
    structure = trace(model, images())
    demote_wrong_units(model, structure, images())
    assert same(before, fingerprint(model))
    assert [module.training for module in (model, model[1].bn1)] == [training, False]


def test_a_model_that_fails_is_left_as_it_was_too():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(5, 2)).train()
    before = fingerprint(model)
    with pytest.raises(UnsupportedModel, match=r"Sequential to run on the example inputs of shapes \[\(2, 3, 6, 6\)\]"):
        trace(model, images())
    assert same(before, fingerprint(model))


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Sequential(), nn.BatchNorm2d(3, affine=False)])
def test_a_model_without_parameters_is_refused(model):
    with pytest.raises(UnsupportedModel, match="expected a network with parameters"):
        trace(model, torch.zeros(1, 0))


def test_example_inputs_may_be_positional_or_named():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, left, right):
            return self.b(F.relu(self.a(left) + self.a(right)))

    model, x, y = Two(), torch.randn(1, 3), torch.randn(1, 3)
    by_place, by_name = trace(model, (x, y)), trace(model, {"right": y, "left": x})
    assert by_place == by_name
    assert [unit.name for unit in by_place.units] == ["a"]
    small = cut(model, by_place, {"a": [1, 5]})
    assert verify_positions(model, small, by_place, {"a": [1, 5]}, (x, y)).ok


class Attention(nn.Module):
    """A map of one channel, made of the largest and the mean of the others."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x):
        return x * torch.sigmoid(self.conv(torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)))


class ChannelAttention(nn.Module):
    """ECA: one kernel that runs along the channels, whose order therefore has a meaning."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        return x * torch.sigmoid(self.conv(x.mean((2, 3)).unsqueeze(1))).squeeze(1)[:, :, None, None]


@pytest.mark.parametrize("images_at_once", [1, 2])
def test_a_convolution_of_one_channel_says_that_none_can_go(images_at_once):
    structure = trace(Between(Attention()), images()[:images_at_once])
    assert [unit.width for unit in structure.units] == [8]
    (row,) = [row for row in structure.frozen if row.what == "between.conv"]
    assert "single positions" in row.reason


def test_a_kernel_along_channels_freezes_them_and_says_that_it_has_one_itself():
    structure = trace(Between(ChannelAttention()), images())
    rows = {row.what: row.reason for row in structure.frozen}
    assert "spatial" in rows["first"]
    assert "single positions" in rows["between.conv"]
