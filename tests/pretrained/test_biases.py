"""Biases of layers that have none in the checkpoint: what they take up, and that exports keep them."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import ConfigError
from autoprune.pretrained import add_biases, causal_lm
from autoprune.pretrained.export import TransformersExporter
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.find import find_structure
from autoprune.prune.surgery.surgery import make_recipe
from autoprune.run.results.export import RecipeExporter
from autoprune.run.results.exporter import ExportFacts

IDS = torch.arange(48).view(4, 12) % 19
MLPS = "model.layers.0.mlp.gate_proj", "model.layers.1.mlp.gate_proj"


def logits(network):
    with torch.no_grad():
        return network(IDS).logits


def exported(dense, counts):
    """A network from the bank, and the facts of its export."""
    structure = find_structure(dense, (IDS,))
    bank = make_bank(dense, structure, list(counts), CRITERIA["l2"], [(IDS,)])
    subnet = bank.subnet(counts)
    return bank.build(subnet).eval(), ExportFacts(dense, make_recipe(structure, subnet.positions), {}), bank


def test_a_network_with_zero_biases_computes_what_it_did(llama):
    plain, biased = (causal_lm(llama, biases=which) for which in ("none", "configured"))
    assert torch.allclose(logits(plain), logits(biased), rtol=0, atol=1e-6)
    added = dict(biased.named_parameters()).keys() - dict(plain.named_parameters()).keys()
    assert len(added) == 2 * 7
    assert not any(bool(biased.get_parameter(name).any()) for name in added)
    assert biased.config.attention_bias
    assert biased.config.mlp_bias


def test_layers_with_a_bias_keep_it_and_the_output_layer_gets_none(llama):
    network = causal_lm(llama, biases="none")
    query = network.model.layers[0].self_attn.q_proj
    query.bias = own = nn.Parameter(torch.ones(16))
    assert add_biases(add_biases(network, "all"), "all") is network
    assert query.bias is own
    assert network.lm_head.bias is None
    with pytest.raises(ConfigError, match="expected biases configured, all or none, got 'some'"):
        add_biases(network, "some")


def test_a_class_without_switches_gets_biases_only_where_all_are_wanted():
    import transformers

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    network = transformers.MistralForCausalLM(transformers.MistralConfig(**sizes, num_key_value_heads=2, vocab_size=9))
    before = dict(network.named_parameters()).keys()
    assert dict(add_biases(network).named_parameters()).keys() == before
    assert len(dict(add_biases(network, "all").named_parameters())) == len(before) + 7


def test_the_bias_of_a_layer_keeps_the_average_of_its_dense_output(llama):
    dense = causal_lm(llama, biases="configured")
    small, *_ = exported(dense, {MLPS[0]: 3})
    means = []
    for network in (dense, small):
        seen = []
        hook = network.model.layers[0].mlp.down_proj.register_forward_hook(lambda m, x, y, seen=seen: seen.append(y))
        logits(network)
        hook.remove()
        means.append(seen[0].mean(dim=(0, 1)))
    assert small.model.layers[0].mlp.down_proj.weight.shape == (16, 3)
    torch.testing.assert_close(*means, rtol=1e-4, atol=1e-6)


def test_exports_keep_created_biases(llama, tmp_path):
    dense = causal_lm(llama, biases="configured")
    network, facts, _ = exported(dense, dict.fromkeys(MLPS, 6))
    assert network.model.layers[0].mlp.down_proj.bias.any()
    for exporter, folder in ((RecipeExporter(), tmp_path / "recipe"), (TransformersExporter(), tmp_path / "plain")):
        folder.mkdir()
        exporter.write(network, facts, (IDS,), folder)
    assert torch.equal(
        logits(autoprune.load(causal_lm(llama, biases="configured"), tmp_path / "recipe")), logits(network)
    )
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert (config["architectures"], config["mlp_bias"]) == (["LlamaForCausalLM"], True)
    assert torch.equal(logits(causal_lm(tmp_path / "plain")), logits(network))


def test_a_class_that_has_no_biases_gets_them_from_the_modelling_file(llama, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    dense = add_biases(causal_lm(llama, biases="none"), "all")
    network, facts, _ = exported(dense, {MLPS[0]: 6})
    folder = tmp_path / "own"
    folder.mkdir()
    TransformersExporter().write(network, facts, (IDS,), folder)
    assert torch.equal(logits(causal_lm(folder, trust_remote_code=True)), logits(network))
