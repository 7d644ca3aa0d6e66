"""Second moments of consumers against numpy on the inputs themselves, and what is said where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import images
from torch import nn
from torch.nn import functional as F

from autoprune.prune.bank.channels import make_bank, notes_on
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments import consumers as kinds
from autoprune.prune.moments import ridge, sums
from autoprune.prune.moments.consumers import consumers_of, find_consumers, statistics_bytes
from autoprune.prune.moments.design import design_of
from autoprune.prune.moments.moments import collect_moments
from autoprune.prune.moments.refit import refit
from autoprune.prune.moments.shifts import add_products, row_sums, shift_macs, shiftable
from autoprune.prune.structure.trace import trace

BATCHES = [(images(8, seed),) for seed in (3, 4)]


@pytest.fixture
def tiny_ridge(monkeypatch):
    monkeypatch.setattr(ridge, "RIDGE", 1e-11)
    monkeypatch.setattr(kinds, "SCARCE", 0)  # no other ridge is chosen


class Conv1D(nn.Module):
    """The layer of transformers, its weight (inputs, outputs)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight)


def between(consumer, *, flat=False):
    """A network whose layer 2 is the consumer, with what flows into it correlated."""
    first = nn.Linear(5, 8) if flat else nn.Conv2d(3, 8, 3)
    last = nn.Linear(12, 2) if flat else nn.Conv2d(12, 2, 1)
    return nn.Sequential(first, nn.ReLU(), consumer, nn.ReLU(), last)


def seen_by(model, name, batches):
    """(g, n, k) float64 design rows of everything that goes into a module."""
    module, rows = model.get_submodule(name), []
    design = design_of(module)
    hook = module.register_forward_pre_hook(lambda _, args: rows.append(design.rows(args[0].detach())))
    with torch.no_grad():
        for batch in batches:
            model(*batch)
    hook.remove()
    return torch.cat(rows, dim=1).double().numpy()


LAYERS = {
    "grouped": (lambda: nn.Conv2d(8, 12, 3, groups=2, padding=1), False),
    "grouped without bias": (lambda: nn.Conv2d(8, 12, 3, groups=2, padding=1, bias=False), False),
    "reflecting": (lambda: nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect"), False),
    "same": (lambda: nn.Conv2d(8, 12, 3, padding="same", dilation=2), False),
    "transposed": (lambda: nn.ConvTranspose2d(8, 12, 3, stride=2, padding=1, output_padding=1), False),
    "transposed groups": (lambda: nn.ConvTranspose2d(8, 12, 3, stride=2, groups=2), False),
    "Conv1D": (lambda: Conv1D(12, 8), True),
}


def case(name):
    make, flat = LAYERS[name]
    model = between(make(), flat=flat)
    return model, ([(torch.randn(60, 5),)] if flat else BATCHES)


@pytest.mark.parametrize("name", LAYERS)
def test_moments_are_those_of_what_goes_in_group_by_group(name):
    model, batches = case(name)
    x = seen_by(model, "2", batches)
    found, reasons = collect_moments(model, trace(model, batches[0]), ["2.weight"], batches)
    moments = found["2.weight"]
    assert reasons == {}
    assert moments.centred == (model[2].bias is not None)
    assert moments.rows == x.shape[1]
    for group, rows in enumerate(x):
        expected = np.cov(rows.T, bias=True) if moments.centred else rows.T @ rows / len(rows)
        assert np.allclose(moments.gram[group], expected, atol=1e-5)
        assert np.allclose(moments.mean[group], rows.mean(axis=0), atol=1e-5)


@pytest.mark.usefixtures("tiny_ridge")
@pytest.mark.parametrize("name", LAYERS)
def test_the_refitted_layer_is_numpys_least_squares_in_every_group(name):
    model, batches = case(name)
    module = model[2]
    design, x = design_of(module), seen_by(model, "2", batches)
    moments = collect_moments(model, trace(model, batches[0]), ["2.weight"], batches)[0]["2.weight"]
    inside = np.array([0, 2, 3])  # of each group
    spread = design.inputs_first and design.groups > 1
    kept = np.concatenate([inside, inside + 4]) if spread else inside
    weight, shifts = refit(module.weight, moments, kept)
    columns = (inside[:, None] * design.kernel + np.arange(design.kernel)).ravel()
    flat, solved = design.flat(module.weight.detach().double()).numpy(), design.flat(weight).numpy()
    for group, rows in enumerate(x):
        ones = np.ones((len(rows), 1 if module.bias is not None else 0))
        expected = np.linalg.lstsq(np.hstack([rows[:, columns], ones]), rows @ flat[group].T, rcond=None)[0].T
        assert np.allclose(solved[group], expected[:, : len(columns)], atol=1e-3)
        if module.bias is not None:
            shift = shifts["2.bias"].reshape(design.groups, -1)[group]
            assert np.allclose(shift, expected[:, -1], atol=1e-3)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("share", [0.5, 0.75])
def test_networks_of_any_layers_are_closer_to_the_dense_output_than_slices(name, share):
    model, batches = case(name)
    structure = trace(model, batches[0])
    bank = make_bank(model, structure, [unit.name for unit in structure.units], obs, batches)
    units = [unit for unit in structure.units if any(slot.tensor == "2.weight" for slot in unit.with_role("in"))]
    counts = {unit.name: round(share * unit.width) for unit in units}
    refitted = bank.build(bank.subnet(counts))
    bank.moments = {}  # so that nothing is refitted
    errors = []
    for small in (refitted, bank.build(bank.subnet(counts))):
        errors.append(sum(float((small(*batch) - model(*batch)).detach().square().mean()) for batch in batches))
    assert errors[0] < errors[1]


def test_a_unit_of_whole_groups_of_a_transposed_convolution_keeps_slices_bit_for_bit():
    model, batches = case("transposed groups")
    structure = trace(model, batches[0])
    groups = next(unit for unit in structure.units if unit.width == 2)
    bank = make_bank(model, structure, [groups.name], obs, batches)
    kept = bank.subnet({groups.name: 1}).positions[groups.name]
    small = bank.build(bank.subnet({groups.name: 1}))
    assert torch.equal(small[2].weight, model[2].weight[4 * kept[0] : 4 * kept[0] + 4])


def channel_moments(model, batches, limit=1200):
    found, reasons = collect_moments(model, trace(model, batches[0]), ["2.weight"], batches, limit=limit)
    assert reasons == {}
    return found["2.weight"]


@pytest.mark.usefixtures("tiny_ridge")
@pytest.mark.parametrize("name", ["grouped", "grouped without bias", "transposed", "reflecting"])
def test_too_many_columns_share_one_mixing_of_channels_over_all_kernel_positions(name):
    model, batches = case(name)
    module = model[2]
    design, x = design_of(module), seen_by(model, "2", batches)
    moments, kept = channel_moments(model, batches), np.array([0, 2, 3])
    weight, shifts = refit(module.weight, moments, kept)
    assert moments.form == "channels"
    for group, rows in enumerate(x):
        level = rows.mean(axis=0) if module.bias is not None else np.zeros(rows.shape[1])
        pixels = (rows - level).reshape(len(rows), -1, design.kernel).transpose(0, 2, 1)  # (n, kernel, channels)
        flat = pixels.reshape(-1, pixels.shape[2])
        mixing = np.linalg.lstsq(flat[:, kept], flat, rcond=None)[0]  # x ~ x_kept @ mixing
        dense = design.flat(module.weight.detach().double())[group].numpy()
        dense = dense.reshape(len(dense), -1, design.kernel)
        expected = np.einsum("ock,rc->ork", dense, mixing)
        solved = design.flat(weight)[group].numpy().reshape(expected.shape)
        assert np.allclose(solved, expected, atol=1e-4)
        if module.bias is not None:
            by_channel = level.reshape(-1, design.kernel)
            expected_shift = (dense * by_channel).sum(axis=(1, 2)) - (solved * by_channel[kept]).sum(axis=(1, 2))
            assert np.allclose(shifts["2.bias"].reshape(design.groups, -1)[group], expected_shift, atol=1e-4)


def test_moments_of_channels_of_a_1x1_kernel_are_those_of_its_columns():
    model = between(nn.Conv2d(8, 12, 1))
    by_columns = collect_moments(model, trace(model, BATCHES[0]), ["2.weight"], BATCHES)[0]["2.weight"]
    rows = seen_by(model, "2", BATCHES)[0]
    assert np.allclose(by_columns.gram[0], np.cov(rows.T, bias=True), atol=1e-5)


class Tied(nn.Module):
    """Two layers with one weight, each with a bias of its own, one of them called twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.c.weight = self.b.weight

    def forward(self, x):
        y = F.relu(self.a(x))
        return self.d(F.relu(self.c(F.relu(self.b(y)))) + F.relu(self.b(2 * y)))


def test_a_weight_two_modules_share_gets_the_moments_of_both_and_each_bias_its_own_shift():
    torch.manual_seed(0)
    model, batches = Tied(), [(torch.randn(40, 5),), (torch.randn(30, 5),)]
    x = {name: seen_by(model, name, batches)[0] for name in ("b", "c")}
    moments = collect_moments(model, trace(model, batches[0]), ["b.weight"], batches)[0]["b.weight"]
    spreads = {name: len(rows) * np.cov(rows.T, bias=True) for name, rows in x.items()}
    assert moments.rows == 210
    assert np.allclose(moments.gram[0], sum(spreads.values()) / 210, atol=1e-5)
    assert np.allclose(moments.mean[0], np.concatenate(list(x.values())).mean(axis=0), atol=1e-5)
    weight, kept = model.b.weight.detach().double(), np.array([0, 1, 3])
    small, shifts = refit(model.b.weight, moments, kept)
    for name, rows in x.items():
        expected = weight.numpy() @ rows.mean(axis=0) - small.numpy() @ rows.mean(axis=0)[kept]
        assert np.allclose(shifts[f"{name}.bias"], expected, atol=1e-5)


def test_a_tied_weight_with_one_caller_that_takes_no_constant_is_not_centred():
    model, batches = Tied(), [(torch.randn(40, 5),)]
    model.c.bias = None
    x = np.concatenate([seen_by(model, name, batches)[0] for name in ("b", "c")])
    moments = collect_moments(model, trace(model, batches[0]), ["b.weight"], batches)[0]["b.weight"]
    assert not moments.centred
    assert moments.constants == {}
    assert np.allclose(moments.gram[0], x.T @ x / len(x), atol=1e-5)


def test_a_weight_that_is_also_an_embedding_keeps_slices():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x):
            return self.head(F.relu(self.words(x)))

    model, batches = Words(), [(torch.randint(7, (6, 3)),)]
    reasons = collect_moments(model, trace(model, batches[0]), ["words.weight"], batches)[1]
    assert reasons == {"words.weight": "no least squares for a weight of Embedding"}


class Attending(nn.Module):
    def __init__(self, crossed=False, batch_first=True):
        super().__init__()
        self.crossed = crossed
        self.a, self.attention = nn.Linear(4, 8), nn.MultiheadAttention(8, 2, batch_first=batch_first)

    def forward(self, x):
        y = torch.tanh(self.a(x))
        return self.attention(y, y + self.crossed if self.crossed else y, y, need_weights=False)[0]


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_joint_projection_of_attention_has_the_moments_of_its_tokens(batch_first):
    model, x = Attending(batch_first=batch_first), torch.randn(6, 5, 4)
    tokens = torch.tanh(model.a(x)).detach().flatten(0, 1).double().numpy()
    weight = "attention.in_proj_weight"
    moments = collect_moments(model, trace(model, x), [weight], [(x,)])[0][weight]
    assert np.allclose(moments.gram[0], np.cov(tokens.T, bias=True), atol=1e-6)
    assert list(moments.constants) == ["attention.in_proj_bias"]


@pytest.mark.usefixtures("tiny_ridge")
def test_the_joint_projection_of_attention_is_refitted_with_its_bias():
    model, x = Attending(), torch.randn(30, 5, 4)
    structure = trace(model, x)
    unit = next(unit for unit in structure.units if unit.name == "a")
    bank = make_bank(model, structure, [unit.name], obs, [(x,)])
    kept = bank.subnet({"a": 5}).positions["a"]
    tokens = torch.tanh(model.a(x)).detach().flatten(0, 1).double().numpy()
    target = tokens @ model.attention.in_proj_weight.detach().double().numpy().T
    rows = np.hstack([tokens[:, kept], np.ones((len(tokens), 1))])
    expected = np.linalg.lstsq(rows, target, rcond=None)[0].T
    small = bank.build(bank.subnet({"a": 5})).attention
    assert np.allclose(small.in_proj_weight.detach(), expected[:, :-1], atol=1e-3)
    assert np.allclose(small.in_proj_bias.detach(), expected[:, -1], atol=1e-3)


def test_attention_across_different_inputs_keeps_slices():
    model, x = Attending(crossed=True), torch.randn(6, 5, 4)
    weight = "attention.in_proj_weight"
    reasons = collect_moments(model, trace(model, x), [weight], [(x,)])[1]
    assert reasons == {weight: "queries, keys and values are made of different inputs"}


def test_what_the_pass_will_take_is_known_from_shapes():
    for name in LAYERS:
        model, batches = case(name)
        structure = trace(model, batches[0])
        names = [unit.name for unit in structure.units]
        for limit in (None, 5000, 1):
            moments, _ = collect_moments(model, structure, consumers_of(structure.units), batches, limit=limit)
            held = sum(own.stored.nbytes + own.mean.nbytes for own in moments.values())
            assert statistics_bytes(model, structure, names, limit=limit) == held
    assert statistics_bytes(model, structure, []) == 0


@pytest.mark.usefixtures("tiny_ridge")
def test_inputs_that_take_too_much_memory_compensate_within_blocks():
    model, batches = case("Conv1D")
    x, weight = seen_by(model, "2", batches)[0], model[2].weight.detach().double().numpy()
    limit = 8 * (2 * 4 * 4 + 8)
    moments = collect_moments(model, trace(model, batches[0]), ["2.weight"], batches, limit=limit)[0]["2.weight"]
    expected = np.cov(x.T, bias=True)
    expected[:4, 4:] = expected[4:, :4] = 0.0
    assert moments.blocks == 2
    assert np.allclose(moments.gram[0], expected, atol=1e-5)
    assert np.allclose(moments.squares[0], np.diagonal(expected), atol=1e-5)
    small, _ = refit(model[2].weight, moments, np.array([0, 1, 3, 4, 6]))
    centred = x - x.mean(axis=0)
    for inside, rows in ((np.array([0, 1, 3]), slice(0, 3)), (np.array([4, 6]), slice(3, 5))):
        block = slice(0, 4) if rows.start == 0 else slice(4, 8)
        solved = np.linalg.lstsq(centred[:, inside], centred[:, block] @ weight[block], rcond=None)[0]
        assert np.allclose(small[rows], solved, atol=1e-3)
    bank = make_bank(model, trace(model, batches[0]), ["0"], obs, batches)
    assert "blocks" not in str(bank.notes)
    assert notes_on({"2.weight": moments}, named_tensors(model))["2.weight"] == (
        "its inputs are too many: they compensate within 2 blocks"
    )


def test_a_machine_with_room_keeps_the_columns_of_wide_layers_in_float32():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 14_336), nn.Linear(14_336, 4096), nn.Linear(4096, 4))
    structure = trace(model, torch.zeros(1, 4, device="meta"))
    wide = find_consumers(model, structure, ["1.weight"], limit=1 << 30)[0]["1.weight"]
    assert (wide.form, wide.blocks, wide.dtype) == ("columns", 1, torch.float32)
    assert wide.nbytes == 4 * 14_336**2 + 8 * 14_336
    fitting, _ = find_consumers(model, structure, ["1.weight", "2.weight"], limit=500 << 20)
    assert {name: own.blocks for name, own in fitting.items()} == {"1.weight": 2, "2.weight": 1}


def test_wide_moments_are_those_of_narrow_ones_but_for_rounding(monkeypatch):
    for name in LAYERS:
        model, batches = case(name)
        structure = trace(model, batches[0])
        narrow = collect_moments(model, structure, ["2.weight"], batches)[0]["2.weight"]
        monkeypatch.setattr(kinds, "WIDE", 3)
        wide = collect_moments(model, structure, ["2.weight"], batches)[0]["2.weight"]
        monkeypatch.undo()
        assert (narrow.stored.dtype, wide.stored.dtype) == (torch.float64, torch.float32)
        assert np.allclose(narrow.gram, wide.gram, rtol=1e-5, atol=1e-6)
        kept = np.array([0, 2, 3])
        assert np.allclose(refit(model[2].weight, narrow, kept)[0], refit(model[2].weight, wide, kept)[0], atol=1e-3)


SHIFTED = {
    "3x3": lambda: nn.Conv2d(8, 12, 3, padding=1),
    "unpadded": lambda: nn.Conv2d(8, 12, 3),
    "over-padded": lambda: nn.Conv2d(8, 12, 3, padding=3),
    "oblong": lambda: nn.Conv2d(8, 12, (1, 4), padding=(0, 1)),
    "dilated": lambda: nn.Conv2d(8, 12, (3, 2), padding=(2, 1), dilation=(2, 3), bias=False),
    "same": lambda: nn.Conv2d(8, 12, 4, padding="same"),
}


@pytest.mark.parametrize("name", SHIFTED)
def test_shifted_products_are_those_of_the_rows_also_at_the_border(name, monkeypatch):
    design = design_of(SHIFTED[name]())
    x = torch.rand(3, 8, 7, 6)
    rows = design.rows(x)[0].double()
    total = torch.zeros(design.columns, design.columns, dtype=torch.float64)
    add_products(total, x, design)
    assert shiftable(design)
    assert np.allclose(total, rows.T @ rows, rtol=1e-5, atol=1e-5)
    assert np.allclose(row_sums(x, design), rows.sum(dim=0), rtol=1e-5)


def test_a_3x3_kernel_takes_thirteen_products_of_channels():
    design = design_of(nn.Conv2d(8, 12, 3, padding=1))
    assert shift_macs(design, 10, 20) == 13 * 8**2 * 12 * 22


@pytest.mark.parametrize("change", [{"stride": 2}, {"groups": 2}, {"padding_mode": "circular"}, {"kernel_size": 1}])
def test_other_convolutions_have_no_shifted_products(change):
    assert not shiftable(design_of(nn.Conv2d(8, 12, **{"kernel_size": 3, "padding": 1, **change})))
    assert not shiftable(design_of(nn.Linear(3, 4)))
    assert not shiftable(design_of(nn.ConvTranspose2d(8, 12, 3)))


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_moments_by_shifts_are_those_of_the_rows_also_far_from_zero(offset, monkeypatch):
    """Where inputs are far from zero, float32 products of shifts would lose their spread, and rows are gathered."""
    model = between(nn.Conv2d(8, 12, 3, padding=1))
    model[1] = nn.Identity()
    with torch.no_grad():
        model[0].bias.add_(offset)
    calls = []
    monkeypatch.setattr(kinds, "SCARCE", 1)
    monkeypatch.setattr(sums, "add_products", lambda *args: calls.append(add_products(*args)))
    moments = collect_moments(model, trace(model, BATCHES[0]), ["2.weight"], BATCHES)[0]["2.weight"]
    assert bool(calls) == (offset == 0)
    expected = np.cov(seen_by(model, "2", BATCHES)[0].T, bias=True)
    assert np.allclose(moments.gram[0], expected, rtol=1e-4, atol=1e-5)


def test_many_rows_are_sampled_over_all_examples_and_that_is_said(monkeypatch):
    monkeypatch.setattr(sums, "ROWS_A_COLUMN", 10)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    batches = [(torch.randn(8, 3, 20, 20),) for _ in range(5)]
    structure = trace(model, batches[0])
    x = seen_by(model, "2", batches)[0]
    moments = collect_moments(model, structure, ["2.weight"], batches)[0]["2.weight"]
    again = collect_moments(model, structure, ["2.weight"], batches)[0]["2.weight"]
    assert moments.seen == len(x)
    assert 40 <= moments.rows <= 45
    assert torch.equal(moments.gram, again.gram)
    assert notes_on({"2.weight": moments}, named_tensors(model))["2.weight"].startswith("its second moments are those")
    spread = np.sqrt(np.diagonal(np.cov(x.T, bias=True)))
    assert np.all(np.abs(moments.mean[0].numpy() - x.mean(axis=0)) <= 5 * spread / np.sqrt(moments.rows))


class Attentive(nn.Module):
    """Two projections of one tensor, and a third of another one."""

    def __init__(self, *, changes=False, twice=False, bias=False):
        super().__init__()
        self.a, self.o = nn.Linear(5, 8), nn.Linear(6, 2)
        self.q, self.k, self.v = nn.Linear(8, 6, bias=False), nn.Linear(8, 6, bias=bias), nn.Linear(8, 6, bias=False)
        self.changes, self.twice, self.batches = changes, twice, 0

    def forward(self, x):
        self.batches += 1
        y = F.relu(self.a(x))
        q = self.q(y)
        k = self.k(y + 1 if self.changes and self.batches > 1 else y)
        return self.o(F.relu(q * k + self.v(2 * y) + (self.k(3 * y) if self.twice else 0)))


WEIGHTS = ["q.weight", "k.weight", "v.weight"]


def test_weights_that_read_the_same_tensor_share_one_gram():
    model, batches = Attentive(), [(torch.randn(30, 5),) for _ in range(3)]
    found = collect_moments(model, trace(model, batches[0]), WEIGHTS, batches)[0]
    assert found["q.weight"].stored is found["k.weight"].stored
    assert found["v.weight"].stored is not found["q.weight"].stored
    for name in "qkv":
        x = seen_by(model, name, batches)[0]
        assert found[f"{name}.weight"].rows == len(x) == 90
        assert np.allclose(found[f"{name}.weight"].gram[0], x.T @ x / len(x), atol=1e-5)


@pytest.mark.parametrize("change", ["changes", "twice", "bias"])
def test_weights_that_do_not_always_read_the_same_tensor_have_their_own(change):
    model, batches = Attentive(**{change: True}), [(torch.randn(30, 5),) for _ in range(3)]
    structure = trace(Attentive(**{change: True}), batches[0])
    found = collect_moments(model, structure, WEIGHTS, batches)[0]
    x = {}
    for name in "qk":
        model.batches = 0
        x[name] = seen_by(model, name, batches)[0]
    assert found["q.weight"].stored is not found["k.weight"].stored
    assert np.allclose(found["q.weight"].gram[0], x["q"].T @ x["q"] / len(x["q"]), atol=1e-5)
    if change == "bias":
        assert np.allclose(found["k.weight"].gram[0], np.cov(x["k"].T, bias=True), atol=1e-5)
        assert list(found["k.weight"].constants) == ["k.bias"]


def test_moments_of_a_model_in_bfloat16_are_those_of_its_inputs():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)).bfloat16()
    batches = [(torch.randn(40, 5).bfloat16(),)]
    moments = collect_moments(model, trace(model, batches[0]), ["2.weight"], batches)[0]["2.weight"]
    x = seen_by(model, "2", batches)[0]
    assert np.allclose(moments.gram[0], x.T @ x / len(x), atol=1e-5)


def test_the_prediction_runs_nothing_and_needs_no_memory():
    with torch.device("meta"):
        model = between(nn.Conv2d(8, 12, 3, groups=2))
    consumers, _ = find_consumers(model, trace(model, torch.zeros(1, 3, 8, 8, device="meta")), ["2.weight"])
    assert consumers["2.weight"].nbytes == 8 * 2 * (36 * 36 + 36)


def test_inputs_that_leave_the_range_of_numbers_are_a_reason():
    model, batches = case("Conv1D")
    with torch.no_grad():
        model[0].weight.mul_(1e25)
    reasons = collect_moments(model, trace(model, batches[0]), ["2.weight"], batches)[1]
    assert reasons == {"2.weight": "its inputs, or their squares, are not finite"}


def test_a_weight_used_without_its_module_is_a_reason():
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, x):
            return F.linear(F.relu(self.a(x)), self.b.weight)

    model, x = Direct(), torch.randn(3, 5)
    reasons = collect_moments(model, trace(model, x), ["b.weight"], [(x,)])[1]
    assert reasons == {"b.weight": "the forward uses it without calling its module"}


def test_a_weight_that_is_a_buffer_is_a_reason():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 4)
            self.register_buffer("fixed", torch.randn(2, 4))

        def forward(self, x):
            return F.linear(F.relu(self.a(x)), self.fixed)

    model, x = Fixed(), torch.randn(3, 5)
    assert consumers_of(trace(model, x).units) == ("fixed",)
    reasons = collect_moments(model, trace(model, x), ["fixed"], [(x,)])[1]
    assert reasons == {"fixed": "it is a buffer, which stays as it is"}


def test_a_weight_that_modules_multiply_in_different_ways_is_a_reason():
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, stride=2)
            self.c.weight = self.b.weight

        def forward(self, x):
            y = F.relu(self.a(x))
            return self.b(y).mean() + self.c(y).mean()

    model, x = Apart(), images()
    reasons = collect_moments(model, trace(model, x), ["b.weight"], [(x,)])[1]
    assert reasons == {"b.weight": "b and c share it and multiply it in different ways"}


def test_the_pass_leaves_the_models_hooks_and_tensors_alone():
    model, batches = case("grouped")
    before = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
    collect_moments(model, trace(model, batches[0]), ["2.weight"], batches)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in named_tensors(model).items())


class Strided(nn.Module):
    """A consumer with stride, dilation, padding and a bias, followed by no batch norm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))

    def forward(self, x):
        return self.second(F.relu(self.first(x)))


def test_moments_do_not_depend_on_the_size_of_the_pieces(monkeypatch):
    model = Strided()
    structure = trace(model, images())
    whole, _ = collect_moments(model, structure, ["second.weight"], BATCHES)
    monkeypatch.setattr(sums, "ROWS_BYTES", 4 * 36 * 7)
    pieces, _ = collect_moments(model, structure, ["second.weight"], BATCHES)
    assert np.allclose(whole["second.weight"].gram, pieces["second.weight"].gram, atol=1e-5)


def test_a_small_spread_around_a_large_mean_is_measured_exactly_enough():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3))
        model[0].bias.fill_(1000.0)
    structure = trace(model, torch.randn(1, 3))
    batches = [(torch.randn(50, 3),) for _ in range(4)]
    moments, _ = collect_moments(model, structure, ["1.weight"], batches)
    expected = np.cov(seen_by(model, "1", batches)[0].T, bias=True)
    assert np.allclose(moments["1.weight"].gram, expected, rtol=1e-3, atol=1e-3)
