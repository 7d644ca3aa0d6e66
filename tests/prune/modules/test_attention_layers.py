"""Pruned transformers compute what the dense ones compute without what was removed: padded, nested, fused, scripted.

The reference is the dense network, with its fused kernels, in which the columns that read a removed head or neuron are
zero.
"""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import autoprune

WIDTH, HEADS, HIDDEN = 12, 4, 16
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")


class Encoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True, **options)
        self.embed, self.head = nn.Embedding(30, WIDTH), nn.Linear(WIDTH, 5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a norm in front rules out nested tensors
            self.body = nn.TransformerEncoder(layer, 2)

    def forward(self, words, padded: bool = True, masked: bool = False):
        padding = words.eq(0) if padded else None
        mask = torch.ones(words.shape[1], words.shape[1]).triu(1) > 0 if masked else None
        return self.head(self.body(self.embed(words), mask=mask, src_key_padding_mask=padding))


def words(ragged=True):
    """The second sentence is padded behind its end, the third one in front, too, where that is wanted."""
    torch.manual_seed(1)
    found = torch.randint(1, 30, (3, 7))
    found[1, 4:] = 0
    if not ragged:
        found[2, 0] = 0
    return found


def seeded(**options):
    torch.manual_seed(0)
    return Encoder(**options)


def removed(structure):
    """One head and half of the neurons of every layer, and which go."""
    kept = {}
    for unit in structure.units:
        if unit.kind == "heads":
            kept[unit.name] = [0, 2, 3]
        elif unit.width == HIDDEN:
            kept[unit.name] = list(range(0, HIDDEN, 2))
    assert len(kept) == 4
    return kept


def masked(model):
    """The dense network in which nothing reads the removed heads and neurons."""
    reference = copy.deepcopy(model)
    size = WIDTH // HEADS
    with torch.no_grad():
        for layer in reference.body.layers:
            layer.self_attn.out_proj.weight[:, size : 2 * size] = 0
            layer.linear2.weight[:, 1::2] = 0
    return reference


FORMS = {
    "a norm behind": {},
    "a norm in front": {"norm_first": True},
    "another activation": {"activation": "gelu"},
    "no fused kernel for it": {"activation": nn.functional.silu},
    "no bias": {"bias": False},
}


@pytest.mark.parametrize("found_padded", [True, False], ids=["found padded", "found without padding"])
@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_found_either_way_takes_padding_in_every_mode(form, found_padded):
    model = seeded(**FORMS[form]).eval()
    structure = autoprune.find_structure(model, (words() if found_padded else words().clamp_min(1), found_padded))
    assert structure.frozen == ()
    small, reference = autoprune.shrink(model, structure, removed(structure)), masked(model)
    for training in (False, True):
        for gradients in (False, True):
            for call in ((words(),), (words(ragged=False),), (words(), True, True), (words(), False)):
                with torch.set_grad_enabled(gradients):
                    torch.testing.assert_close(small.train(training)(*call), reference.train(training)(*call))


def test_an_encoder_takes_nested_tensors():
    model = seeded().eval()
    structure = autoprune.find_structure(model, words())
    small, reference = autoprune.shrink(model, structure, removed(structure)), masked(model)
    with torch.no_grad():
        rows = torch.nested.nested_tensor([torch.randn(5, WIDTH), torch.randn(2, WIDTH)])
        found, wanted = (net.body(rows) for net in (small, reference))
        torch.testing.assert_close(found.to_padded_tensor(0.0), wanted.to_padded_tensor(0.0))


@pytest.mark.parametrize("average", [True, False])
def test_attention_to_itself_in_a_nested_tensor_returns_the_weights_of_torch(average):
    torch.manual_seed(0)
    original = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    free = copy.deepcopy(original)
    autoprune.prune.modules.adapting.adapt(free)
    with torch.no_grad():
        x = torch.nested.nested_tensor([torch.randn(5, WIDTH), torch.randn(3, WIDTH)])
        (output, weights), (wanted, wanted_weights) = (
            m(x, x, x, average_attn_weights=average) for m in (free, original)
        )
    torch.testing.assert_close(output.to_padded_tensor(0.0), wanted.to_padded_tensor(0.0))
    torch.testing.assert_close(weights, wanted_weights)


class Attentive(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.enter, self.leave = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options)

    def forward(self, x):
        x = self.enter(x)
        return self.leave(self.attend(x, x, x)[0])


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.leave = nn.Embedding(30, WIDTH), nn.Linear(WIDTH, 5)
        self.body = nn.Transformer(WIDTH, HEADS, 1, 1, HIDDEN, batch_first=True)

    def forward(self, source, target):
        mask = torch.ones(target.shape[1], target.shape[1]).triu(1) > 0
        padding = source.eq(0)
        hidden = self.body(
            self.embed(source),
            self.embed(target),
            tgt_mask=mask,
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.leave(hidden)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, HIDDEN, norm_first=True)
        self.embed, self.body, self.leave = (
            nn.Embedding(30, WIDTH),
            nn.TransformerDecoder(layer, 2),
            nn.Linear(WIDTH, 5),
        )

    def forward(self, words, memory):
        return self.leave(self.body(self.embed(words.t()), self.embed(memory.t())))


SCRIPTED = {
    "encoder": (lambda: seeded(), lambda: (words(),)),
    "attention": (lambda: Attentive(), lambda: (torch.randn(2, 4, 5),)),
    "attention with more keys": (
        lambda: Attentive(add_bias_kv=True, add_zero_attn=True),
        lambda: (torch.randn(2, 4, 5),),
    ),
    "attention without batch": (lambda: Attentive(), lambda: (torch.randn(4, 5),)),
    "decoder": (Decoder, lambda: (words(), words().clamp_min(1))),
    "encoder and decoder": (Translator, lambda: (words(), words().clamp_min(1))),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, of its scripting and exporting
@pytest.mark.parametrize("name", SCRIPTED)
def test_a_small_network_is_scripted_exported_copied_and_pickled_as_the_dense_one_is(name):
    make, inputs = SCRIPTED[name]
    model, example = make().eval(), inputs()
    structure = autoprune.find_structure(model, example)
    assert {"heads", "head_dim"} <= {unit.kind for unit in structure.units}
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, example).ok
    torch.jit.script(model)  # the dense one does
    with torch.no_grad():
        wanted = small(*example)
        torch.testing.assert_close(torch.jit.script(small)(*example), wanted)
        assert torch.equal(copy.deepcopy(small)(*example), wanted)
        assert torch.equal(pickle.loads(pickle.dumps(small))(*example), wanted)
    wanted = small(*example)  # with gradients no nested tensor comes in between, which would leave zeros as padding
    torch.testing.assert_close(torch.export.export(small, example).module()(*example), wanted)
