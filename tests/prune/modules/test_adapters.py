"""Attention with free heads computes what torch's own computes, whatever its options, inputs and masks."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from autoprune.prune.modules.adapters import FreeAttention
from autoprune.prune.modules.adapting import adapt

WIDTH, HEADS, BATCH, QUERIES, KEYS = 12, 3, 2, 4, 5
DIMS = {"one width": (None, None), "keys": (7, None), "values": (None, 8), "keys and values": (7, 8)}
MASKS = ("none", "boolean", "float", "boolean by head", "float by head")
PADDINGS = ("none", "boolean", "float")


@pytest.fixture(autouse=True)
def without_fast_path():
    """Fused kernels for whole layers would run neither forward."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def attention(batch_first=True, **options):
    """Attention in float64 with biases that are not the zeros they start from, and its adapted copy."""
    original = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, **options).double().eval()
    for name, parameter in original.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    return original, adapted_copy(original)


def adapted_copy(model):
    other = copy.deepcopy(model)
    assert adapt(other)
    return other


def sequences(batch_first, batched, kdim=None, vdim=None):
    """Queries, keys and values that want gradients."""
    found = []
    for length, width in ((QUERIES, WIDTH), (KEYS, kdim or WIDTH), (KEYS, vdim or WIDTH)):
        shape = (length, width) if not batched else (BATCH, length, width) if batch_first else (length, BATCH, width)
        found.append(torch.randn(shape, dtype=torch.float64, requires_grad=True))
    return found


def as_asked(hidden, kind):
    """A boolean mask, or the float one that lowers instead of hides."""
    return hidden if kind.startswith("boolean") else hidden.double() * -1.5


def mask_of(kind, batched):
    """(queries, keys), or one of them for every head of every sequence; the first key is always seen."""
    if kind == "none":
        return None
    rows = (BATCH if batched else 1) * HEADS
    hidden = torch.rand((rows, QUERIES, KEYS) if kind.endswith("head") else (QUERIES, KEYS)) < 0.4
    hidden[..., 0] = False
    return as_asked(hidden, kind)


def padding_of(kind, batched):
    """The last key of the last sequence is padding."""
    if kind == "none":
        return None
    hidden = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    hidden[-1, -1] = True
    return as_asked(hidden if batched else hidden[-1], kind)


def compare(original, free, inputs, *, backward=True, **options):
    """Outputs, weights, and unless told otherwise the gradients of inputs and parameters, of both."""
    results = [module(*inputs, **options) for module in (original, free)]
    (wanted, wanted_weights), (output, weights) = results
    torch.testing.assert_close(output, wanted)
    assert (weights is None) == (wanted_weights is None) == (not options["need_weights"])
    if weights is not None:
        torch.testing.assert_close(weights, wanted_weights)
    if not backward:
        return
    gradients = []
    for module, (output, weights) in zip((original, free), results, strict=True):
        total = output.square().sum() + (weights.square().sum() if weights is not None else 0)
        leaves = [*inputs, *module.parameters()]
        gradients.append(torch.autograd.grad(total, leaves))
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("zeros", [False, True], ids=["", "zero attention"])
@pytest.mark.parametrize("extra", [False, True], ids=["", "bias of keys and values"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_every_combination_of_options_inputs_and_masks_agrees(bias, extra, zeros, dims):
    kdim, vdim = DIMS[dims]
    built = {"bias": bias, "add_bias_kv": extra, "add_zero_attn": zeros, "kdim": kdim, "vdim": vdim}
    for batch_first in (True, False):
        original, free = attention(batch_first, **built)
        assert type(free) is FreeAttention
        for batched, mask, padding in itertools.product((True, False), MASKS, PADDINGS):
            if {mask.split()[0], padding} == {"boolean", "float"}:
                continue  # torch warns against masks of two types
            inputs = sequences(batch_first, batched, kdim, vdim)
            masks = {"attn_mask": mask_of(mask, batched), "key_padding_mask": padding_of(padding, batched)}
            for need, average in ((True, True), (True, False), (False, True)):
                options = {"need_weights": need, "average_attn_weights": average}
                compare(original, free, inputs, backward=average, **masks, **options)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("kind", ["boolean", "float"])
def test_a_causal_mask_with_the_hint_that_it_is_one_agrees(kind, need_weights):
    original, free = attention()
    x = sequences(True, True)[0]
    later = torch.ones(QUERIES, QUERIES, dtype=torch.bool).triu(1)
    mask = later if kind == "boolean" else nn.Transformer.generate_square_subsequent_mask(QUERIES, dtype=torch.float64)
    for padding in (None, torch.zeros(BATCH, QUERIES, dtype=mask.dtype)):
        masks = {"attn_mask": mask, "key_padding_mask": padding, "is_causal": True}
        compare(original, free, [x, x, x], **masks, need_weights=need_weights)


def test_the_hint_without_a_mask_is_refused_as_torch_refuses_it():
    original, free = attention()
    x = sequences(True, True)[0]
    for module in (original, free):
        with pytest.raises(RuntimeError, match="attn_mask"):
            module(x, x, x, is_causal=True)


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_in_training_acts_on_the_weights_and_leaves_the_shapes(need_weights):
    original, free = (module.train() for module in attention(dropout=0.5))
    inputs = sequences(True, True)
    (wanted, wanted_weights), (output, weights) = (m(*inputs, need_weights=need_weights) for m in (original, free))
    assert output.shape == wanted.shape
    assert (weights is None) == (wanted_weights is None) == (not need_weights)
    assert not need_weights or weights.shape == wanted_weights.shape
    assert not torch.equal(free(*inputs)[0], free(*inputs)[0])


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_an_encoder_layer_agrees(batch_first, norm_first):
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=batch_first, norm_first=norm_first)
    original = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().eval()
    free = adapted_copy(original)
    x = sequences(batch_first, True)[0]
    causal = nn.Transformer.generate_square_subsequent_mask(QUERIES, dtype=torch.float64)
    padding = torch.zeros(BATCH, QUERIES, dtype=torch.float64)
    padding[-1, -1] = float("-inf")
    for options in ({}, {"mask": causal}, {"mask": causal, "is_causal": True}, {"src_key_padding_mask": padding}):
        torch.testing.assert_close(free(x, **options), original(x, **options))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_whole_transformer_agrees_forward_and_backward(batch_first):
    built = {"num_encoder_layers": 2, "num_decoder_layers": 2, "dim_feedforward": 16, "batch_first": batch_first}
    original = nn.Transformer(WIDTH, HEADS, **built, dropout=0.0).double()
    free = adapted_copy(original)
    assert sum(type(module) is FreeAttention for module in free.modules()) == 6
    target, source, _ = sequences(batch_first, True)
    causal = nn.Transformer.generate_square_subsequent_mask(QUERIES, dtype=torch.float64)
    padding = padding_of("float", True)
    options = {"tgt_mask": causal, "src_key_padding_mask": padding, "memory_key_padding_mask": padding}
    for training in (True, False):
        wanted, found = (model.train(training)(source, target, **options) for model in (original, free))
        torch.testing.assert_close(found, wanted)
        gradients = [
            torch.autograd.grad(output.square().sum(), [source, target, *model.parameters()])
            for model, output in ((original, wanted), (free, found))
        ]
        torch.testing.assert_close(gradients[1], gradients[0])


def test_adapting_leaves_state_and_other_modules_alone():
    model = nn.Sequential(nn.Linear(5, WIDTH), nn.MultiheadAttention(WIDTH, HEADS))
    free = adapted_copy(model)
    assert type(model[1]) is nn.MultiheadAttention
    assert type(free[0]) is nn.Linear
    assert list(free.state_dict()) == list(model.state_dict())
    assert adapt(free) == ()


def test_only_the_named_modules_are_adapted():
    model = nn.ModuleDict({name: nn.MultiheadAttention(WIDTH, HEADS) for name in ("left", "right")})
    assert adapt(model, ["right"]) == ("right",)
    assert [type(module) for module in model.values()] == [nn.MultiheadAttention, FreeAttention]


def test_a_head_of_another_size_keeps_the_scale_of_the_dense_one():
    original, free = attention(bias=False)
    kept = [head * 4 + place for head in range(HEADS) for place in (0, 2)]  # two of the four places of every head
    small = copy.deepcopy(free)
    rows = [part * WIDTH + index for part in range(3) for index in kept]
    small.in_proj_weight = nn.Parameter(free.in_proj_weight.detach()[rows])
    small.out_proj.weight = nn.Parameter(free.out_proj.weight.detach()[:, kept])
    small.head_dim = 2
    masked = copy.deepcopy(original)
    gone = [part * WIDTH + index for part in range(3) for index in range(WIDTH) if index not in kept]
    masked.in_proj_weight.data[gone] = 0
    inputs = sequences(True, True)
    for need in (True, False):
        torch.testing.assert_close(small(*inputs, need_weights=need)[0], masked(*inputs, need_weights=need)[0])
