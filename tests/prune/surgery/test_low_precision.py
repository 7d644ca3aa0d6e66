"""Networks in bfloat16 and float16: proved in float32, operator by operator, without converted copies."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map
from toys import TOYS

import autoprune
from autoprune.prune.passes import precision
from autoprune.prune.passes.compare import largest_of, outputs, precise_outputs
from autoprune.prune.passes.examples import as_examples
from autoprune.prune.surgery.verify import OUTPUT_TOLERANCE

LOW = [torch.bfloat16, torch.float16]


def converted(tree, dtype):
    return tree_map(lambda x: x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x, tree)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", ["plain", "residual", "depthwise", "lstm", "fused_qkv", "layer_norm", "swiglu"])
def test_operators_compute_what_a_converted_copy_computes(name, dtype):
    model, example = TOYS[name].make()
    model, example = model.to(dtype), converted(example, dtype)
    (low,), (high,) = as_examples(example), as_examples(converted(example, torch.float32))
    found = precise_outputs(model, low)
    assert all(tensor.dtype == torch.float32 for tensor in found)
    assert {tensor.dtype for tensor in model.parameters()} == {dtype}
    assert largest_of(found, outputs(model.float(), high)) < 1e-6


def test_large_matrices_are_converted_some_columns_at_a_time(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5, bias=False)).to(torch.bfloat16)
    (example,) = as_examples(torch.randn(4, 6))
    whole = precise_outputs(model, example)
    monkeypatch.setattr(precision, "CONVERTED_ENTRIES", 12)
    assert largest_of(precise_outputs(model, example), whole) < 1e-6


def test_float64_is_computed_from_the_same_weights():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5)), torch.randn(4, 6)
    (example,) = as_examples(x)
    found = precise_outputs(model, example, dtype=torch.float64)
    assert found[0].dtype == torch.float64
    assert largest_of(found, [model.double()(x.double()).detach()]) < 1e-14


class Masked(nn.Module):
    """Makes an additive mask and a table in the precision of its weights, and adds to a buffer in place."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(16, 8)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 16)
        self.register_buffer("bias", torch.zeros(1, 5, 8))

    def forward(self, ids):
        n = ids.shape[1]
        mask = torch.full((n, n), torch.finfo(torch.bfloat16).min, dtype=torch.bfloat16).triu(1)
        x = self.tokens(ids)
        cache = torch.zeros(x.shape, dtype=torch.bfloat16)
        cache[:, :n] = x
        q, k, v = (f(cache).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        return self.head(x + self.down(F.relu(self.up(x.to(torch.bfloat16)))))


def test_a_network_that_makes_bfloat16_masks_is_analysed_and_verified():
    torch.manual_seed(0)
    model, ids = Masked().to(torch.bfloat16).eval(), torch.randint(0, 16, (2, 5))
    structure = autoprune.find_structure(model, ids)
    assert ("neurons", 12) in {(unit.kind, unit.width) for unit in structure.units}
    assert not any("does not run" in row.reason for row in structure.frozen)
    small = autoprune.shrink(model, structure, 0.5)
    report = autoprune.verify(model, small, structure, ids)
    assert report.ok
    assert report.tolerance == OUTPUT_TOLERANCE
    with torch.no_grad():  # half of the step between two numbers of bfloat16 around the largest weight
        small.down.weight[0, 0] += 0.01 * small.down.weight.abs().max()
    assert not autoprune.verify(model, small, structure, ids).ok


@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
def test_decoders_of_transformers_in_bfloat16(kind):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(torch.bfloat16).eval()
    ids = {"input_ids": torch.randint(0, 32, (2, 12)), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    ids["attention_mask"][1, :3] = 0
    structure = autoprune.find_structure(model, ids)
    assert [unit.name for unit in structure.units] == [
        unit.name for unit in autoprune.find_structure(model.float(), ids).units
    ]
    model = model.to(torch.bfloat16)
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, ids).ok
