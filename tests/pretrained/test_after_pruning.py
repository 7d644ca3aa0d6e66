"""What a pruned language model does right after pruning, and as an exported checkpoint: caches, padding, training."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune.pretrained import causal_lm, named_inputs
from autoprune.pretrained.export import TransformersExporter
from autoprune.pretrained.networks import padded_inputs
from autoprune.prune.find import find_structure
from autoprune.prune.passes.examples import Example
from autoprune.prune.surgery.surgery import cut, make_recipe
from autoprune.run.results.exporter import ExportFacts

pytestmark = pytest.mark.slow

IDS = torch.arange(3, 15).view(1, 12)
TOKENS = torch.tensor([[3, 9, 4, 17, 6, 11, 5, 8, 14, 7], [12, 5, 5, 8, 16, 3, 10, 4, 9, 6]])
SIZES = {
    "vocab_size": 19,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 2,
    "initializer_range": 0.3,
}
GROUPED = {"intermediate_size": 24, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64}
WINDOWS = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
FAMILIES = {"Llama": GROUPED, "Gemma3": GROUPED | WINDOWS, "GPT2": {"n_positions": 64}}

# what is removed: the layers that lose a branch, and units that keep some positions, both by words in their names
ATTENTION = ("self_attn/branch", ".attn/branch", "post_attention_layernorm/branch")
MLP = ("mlp/branch", "post_feedforward_layernorm/branch")
REMOVED: dict[str, dict[tuple[int, tuple[str, ...]], int]] = {
    "first attention": {(0, ATTENTION): 0},
    "middle attention": {(1, ATTENTION): 0},
    "last attention": {(2, ATTENTION): 0},
    "two attentions": {(0, ATTENTION): 0, (2, ATTENTION): 0},
    "middle MLP": {(1, MLP): 0},
    "first block": {(0, ATTENTION): 0, (0, MLP): 0},
    "last block": {(2, ATTENTION): 0, (2, MLP): 0},
    "heads": {(0, ("heads/1", "c_attn/heads")): 1, (1, ("heads/2", "c_attn/heads")): 1, (2, MLP): 0},
    "mixed": {(0, ATTENTION): 0, (1, ("heads/1", "c_attn/heads")): 1, (1, ("gate_proj", "c_fc")): 9, (2, MLP): 0},
}


@dataclass
class Family:
    """A dense network with its structure, and the networks that were pruned from it."""

    dense: Any
    structure: Any
    folder: Path
    made: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def pruned(self, removed: str) -> tuple[Any, Any]:
        """The network right after pruning, and the checkpoint that it is exported to, which must not be changed."""
        if removed not in self.made:
            self.made[removed] = self._pruned(removed)
        return self.made[removed]

    def _pruned(self, removed: str) -> tuple[Any, Any]:
        kept = REMOVED[removed]
        counts = {
            unit.name: count
            for unit in self.structure.units
            for (layer, words), count in kept.items()
            if f".{layer}." in unit.name and any(word in unit.name for word in words)
        }
        assert len(counts) == len(kept)
        positions = {name: np.arange(count) for name, count in counts.items()}
        network = cut(self.dense, self.structure, positions).eval()
        facts = ExportFacts(self.dense, make_recipe(self.structure, positions), {})
        folder = self.folder / removed.replace(" ", "_")
        folder.mkdir()
        TransformersExporter().write(network, facts, (IDS,), folder)
        return network, causal_lm(folder, trust_remote_code=True)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory) -> Iterator[Family]:
    import transformers

    name = request.param
    config = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(name, f"{name}Config"))
    model = getattr(transformers, {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM"))
    torch.manual_seed(0)
    dense = named_inputs(model(config(**SIZES, **FAMILIES[name])).eval())
    examples = (Example((IDS,)), Example(padded_inputs(dense, (IDS,)), name="padded"))
    folder = tmp_path_factory.mktemp(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder / "modules"))
        yield Family(dense, find_structure(dense, examples), folder)


def caches(network):
    import transformers

    return transformers.DynamicCache(config=network.config), transformers.StaticCache(network.config, max_cache_len=16)


def cached(network, cache):
    """The argument of a network that is the cache; newer versions of transformers give it another name."""
    named = "cache" in inspect.signature(network.forward).parameters
    return {"cache" if named else "past_key_values": cache}


def step(network, cache, tokens, mask, start, end):
    """The logits of some tokens, with those before them in the cache."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return network(
        input_ids=tokens[:, start:end],
        attention_mask=mask[:, :end],
        position_ids=positions[:, start:end],
        use_cache=True,
        **cached(network, cache),
    ).logits


@pytest.mark.parametrize("removed", REMOVED)
def test_tokens_after_a_cache_have_the_logits_of_the_whole_sequence(family, removed):
    masks = [torch.ones_like(TOKENS) for _ in range(3)]
    masks[1][1, :3] = 0  # padding on the left
    masks[2][1, -2:] = 0  # on the right
    with torch.no_grad():
        for network in family.pruned(removed):
            for mask in masks:
                positions = (mask.cumsum(1) - 1).clamp(min=0)
                whole = network(input_ids=TOKENS, attention_mask=mask, position_ids=positions, use_cache=False).logits
                for cache in caches(network):
                    steps = [(0, 4), (4, 7), (7, 8), (8, 10)]
                    parts = [step(network, cache, TOKENS, mask, *ends) for ends in steps]
                    counted = mask.bool()
                    assert torch.allclose(torch.cat(parts, 1)[counted], whole[counted], atol=1e-5), type(cache)


@pytest.mark.parametrize("removed", REMOVED)
def test_tokens_after_a_cache_are_counted_by_the_network(family, removed):
    """Without position ids, which come from the length of the cache then."""
    with torch.no_grad():
        for network in family.pruned(removed):
            whole = network(input_ids=TOKENS, use_cache=False).logits
            for cache in caches(network):
                parts = [
                    network(input_ids=TOKENS[:, a:b], use_cache=True, **cached(network, cache)).logits
                    for a, b in [(0, 4), (4, 7), (7, 10)]
                ]
                assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5), type(cache)


def greedy(network, ids, new):
    """The likeliest tokens after those given, one after the other, without a cache."""
    for _ in range(new):
        ids = torch.cat((ids, network(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)), 1)
    return ids


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("removed", ["first attention", "mixed"])
def test_generate_gives_the_likeliest_tokens(family, removed, cache):
    with torch.no_grad():
        for network in family.pruned(removed):
            padded = TOKENS.clone()
            padded[1, :3] = 2
            mask = (padded != 2).long()
            kwargs = {"max_new_tokens": 5, "do_sample": False, "cache_implementation": cache, "disable_compile": True}
            found = network.generate(padded, attention_mask=mask, **kwargs)
            assert torch.equal(found[:1], greedy(network, TOKENS[:1], 5))
            assert torch.equal(found[1:, 3:], greedy(network, TOKENS[1:, 3:], 5))
            beams = network.generate(TOKENS[:1], max_new_tokens=5, do_sample=False, num_beams=2)
            assert beams.shape == (1, 15)


@pytest.mark.parametrize("removed", ["first attention", "mixed"])
def test_both_kinds_of_attention_agree_in_two_precisions(family, removed):
    mask = torch.ones_like(TOKENS)
    mask[1, :3] = 0
    counted = mask.bool()
    with torch.no_grad():
        for network in family.pruned(removed):
            outputs = {}
            for kind in ("eager", "sdpa"):
                for dtype in (torch.float32, torch.bfloat16):
                    other = copy.deepcopy(network).to(dtype)
                    other.set_attn_implementation(kind)
                    assert other.config._attn_implementation == kind
                    outputs[kind, dtype] = other(input_ids=TOKENS, attention_mask=mask).logits[counted]
                    assert outputs[kind, dtype].dtype == dtype
            first = outputs["eager", torch.float32]
            assert torch.allclose(outputs["sdpa", torch.float32], first, atol=1e-5)
            for kind in ("eager", "sdpa"):
                error = (outputs[kind, torch.bfloat16].float() - first).norm() / first.norm()
                assert error < 0.03


def test_gradient_checkpointing_gives_the_same_gradients_and_training_lowers_the_loss(family):
    for network in map(copy.deepcopy, family.pruned("mixed")):
        gradients = []
        for checkpointing in (False, True):
            if checkpointing:
                network.activation_checkpointing_enable()
            network.train().zero_grad()
            torch.manual_seed(0)
            before = network(input_ids=TOKENS, labels=TOKENS).loss
            before.backward()
            gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
        for name, gradient in gradients[0].items():
            assert torch.allclose(gradients[1][name], gradient, atol=1e-6), name
        torch.optim.SGD(network.parameters(), lr=0.01).step()
        torch.manual_seed(0)
        assert network(input_ids=TOKENS, labels=TOKENS).loss < before


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # the compiler's own
def test_torch_compile_computes_the_same(family):
    """As one graph; the backend that compiles the graph to machine code takes minutes, and does not see modules."""
    network = copy.deepcopy(family.pruned("mixed")[0])
    torch.compiler.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(input_ids=TOKENS).logits, network(input_ids=TOKENS).logits, atol=1e-5)
