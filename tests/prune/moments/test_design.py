"""Design rows against the modules themselves: rows times flat weight is what the module puts out."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from autoprune.prune.moments.design import Design, design_of

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SIZE = (7, 6, 5)


class Conv1D(nn.Module):
    """The layer transformers' GPT-2 is made of: a Linear whose weight is (inputs, outputs)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


def design(module) -> Design:
    found = design_of(module)
    assert isinstance(found, Design), found
    return found


def repeats(module, x, positions=None):
    """The module's output from its design rows, less the output itself."""
    found = design(module)
    weight = found.flat(module.weight.detach().float())
    made = found.rows(x, positions) @ weight.transpose(1, 2)
    if module.bias is not None:
        made = made + module.bias.detach().float().reshape(found.groups, 1, -1)
    return made, found.outputs(module(x).detach(), positions)


def check(module, x):
    made, expected = repeats(module, x)
    assert made.shape == expected.shape
    assert made.dtype == expected.dtype == torch.float32
    assert torch.allclose(made, expected, atol=1e-4)
    found = design(module)
    assert found.rows(x).shape == (found.groups, found.count(x), found.columns)
    assert torch.equal(found.shaped(found.flat(module.weight)), module.weight)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 4, 5), (0, 5)])
def test_a_linear_layer_of_any_leading_dimensions(shape):
    check(nn.Linear(5, 3), torch.randn(shape))


def test_the_conv1d_of_transformers_has_its_weight_the_other_way_round():
    check(Conv1D(nf=7, nx=4), torch.randn(2, 3, 4))


@st.composite
def convolutions(draw, dims=(1, 2, 3)):
    d = draw(st.sampled_from(dims))
    groups, kernel = draw(st.sampled_from([1, 2, 4])), [draw(st.integers(1, 3)) for _ in range(d)]
    dilation = [draw(st.integers(1, 2)) for _ in range(d)]
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding = draw(st.sampled_from(["same", "valid", "numbers"]))
    stride = [1 if padding == "same" else draw(st.integers(1, 3)) for _ in range(d)]
    if padding == "numbers":
        padding = [draw(st.integers(0, 2)) for _ in range(d)]
    outputs = groups * draw(st.integers(1, 2))
    options = {"groups": groups, "dilation": dilation, "padding_mode": mode, "padding": padding, "stride": stride}
    return CONVS[d](4, outputs, kernel, bias=draw(st.booleans()), **options), d


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch copies: slow, not wrong
@settings(deadline=None, max_examples=150)
@given(convolutions())
def test_convolutions_of_any_settings(made):
    module, d = made
    check(module, torch.randn(2, 4, *SIZE[:d]))


@st.composite
def transposed(draw):
    d = draw(st.sampled_from([1, 2, 3]))
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel, stride = [draw(st.integers(1, 3)) for _ in range(d)], [draw(st.integers(1, 3)) for _ in range(d)]
    dilation, padding = [draw(st.integers(1, 2)) for _ in range(d)], [draw(st.integers(0, 1)) for _ in range(d)]
    extra = [draw(st.integers(0, max(s, t) - 1)) for s, t in zip(stride, dilation, strict=True)]
    options = {"groups": groups, "dilation": dilation, "padding": padding, "stride": stride, "output_padding": extra}
    return TRANSPOSED[d](4, groups * draw(st.integers(1, 2)), kernel, bias=draw(st.booleans()), **options), d


@settings(deadline=None, max_examples=100)
@given(transposed())
def test_transposed_convolutions_of_any_settings(made):
    module, d = made
    check(module, torch.randn(2, 4, *SIZE[:d]))


def test_an_even_kernel_padded_to_the_same_size_reads_one_more_place_after_than_before():
    module = nn.Conv1d(1, 1, 2, padding="same", bias=False)
    assert design(module).rows(torch.tensor([[[1.0, 2.0, 3.0]]]))[0].tolist() == [[1, 2], [2, 3], [3, 0]]


def test_rows_are_the_unfolded_patches():
    x = torch.randn(2, 3, 6, 5)
    rows = design(nn.Conv2d(3, 2, (3, 2), stride=2, padding=1)).rows(x)
    assert torch.equal(rows[0], F.unfold(x, (3, 2), padding=1, stride=2).transpose(1, 2).flatten(0, 1))


MODULES = {
    "linear": (nn.Linear(5, 3), (2, 4, 5)),
    "Conv1D": (Conv1D(3, 5), (2, 4, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1, stride=2), (3, 4, 7, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"), (3, 4, 7, 6)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2, padding=1, output_padding=1), (3, 4, 3, 4)),
}


@pytest.mark.parametrize("name", MODULES)
def test_chosen_positions_are_those_of_all_rows_and_outputs(name):
    module, shape = MODULES[name]
    x, found = torch.randn(shape), design(module)
    everything, outputs = repeats(module, x)
    n = found.count(x)
    for positions in (torch.randint(n, (10,)), torch.tensor([n - 1, 0, 0]), torch.zeros(0, dtype=torch.long)):
        assert torch.equal(found.rows(x, positions), found.rows(x)[:, positions])
        made, expected = repeats(module, x, positions)
        assert torch.allclose(made, everything[:, positions], atol=1e-5)
        assert torch.equal(expected, outputs[:, positions])


@pytest.mark.parametrize(("name", "size"), list(itertools.product(MODULES, [0, 1, 7, 10**9])))
def test_pieces_are_the_rows_in_order(name, size):
    module, shape = MODULES[name]
    x, found = torch.randn(shape), design(module)
    pieces = list(found.pieces(x, size))
    assert torch.equal(torch.cat(pieces, dim=1), found.rows(x))
    assert all(piece.shape[1] <= max(1, size) for piece in pieces)


@pytest.mark.parametrize("name", ["grouped", "depthwise", "transposed"])
def test_channels_last_inputs_give_the_same_rows(name):
    module, shape = MODULES[name]
    x, found = torch.randn(shape), design(module)
    assert torch.equal(found.rows(x), found.rows(x.to(memory_format=torch.channels_last)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_rows_are_single_precision_whatever_comes_in(dtype):
    for module, shape in MODULES.values():
        x = torch.randn(shape)
        rows = design(module).rows(x.to(dtype))
        assert rows.dtype == torch.float32
        assert torch.equal(rows, design(module).rows(x.to(dtype).float()))


def test_an_input_without_a_batch_dimension_is_one_example():
    check(nn.Conv2d(4, 6, 3, groups=2), torch.randn(4, 5, 6))


def test_a_pruned_weight_takes_its_shape_from_its_columns():
    weight = torch.randn(6, 2, 3, 3)
    found = design(nn.Conv2d(4, 6, 3, groups=2))
    smaller = found.flat(weight)[:, :2, 9:]
    assert found.shaped(smaller).shape == (4, 1, 3, 3)
    assert torch.equal(found.shaped(smaller), weight[[0, 1, 3, 4]][:, 1:])


def test_what_is_not_linear_in_its_weight_has_a_reason_instead():
    class Padded(nn.Conv2d):
        def forward(self, x):
            return super().forward(F.pad(x, (1, 1)))

    class Standardised(nn.Conv2d):
        def _conv_forward(self, x, weight, bias):
            return super()._conv_forward(x, weight - weight.mean(), bias)

    assert design_of(nn.BatchNorm2d(3)) == "no least squares for a weight of BatchNorm2d"
    assert design_of(nn.Embedding(3, 4)) == "no least squares for a weight of Embedding"
    for kind in (Padded, Standardised):
        assert design_of(kind(3, 4, 1)) == f"{kind.__name__} has a forward of its own"


def test_the_output_projection_of_attention_is_a_linear_layer():
    found = design(nn.MultiheadAttention(6, 2).out_proj)
    assert (found.groups, found.columns, found.kernel) == (1, 6, 1)
