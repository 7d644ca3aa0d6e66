"""Exports as checkpoints of transformers: the same outputs to the bit, without autoprune."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.errors import ExportError
from autoprune.pretrained import causal_lm
from autoprune.pretrained.export import TransformersExporter
from autoprune.pretrained.networks import padded_inputs
from autoprune.prune.find import find_structure
from autoprune.prune.passes.examples import Example
from autoprune.prune.surgery.surgery import cut, make_recipe
from autoprune.run.results.exporter import ExportFacts, find_exporter

IDS = torch.arange(3, 15).view(1, 12)
READ = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
network = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=sys.argv[3] == "own").eval()
ids = torch.load(sys.argv[2])["ids"]
with torch.no_grad():
    torch.save(network(ids).logits, sys.argv[2] + ".logits")
assert network.generate(ids, max_new_tokens=4, do_sample=False).shape == (1, 16)
assert AutoTokenizer.from_pretrained(sys.argv[1])("the cat")["input_ids"] == [4, 6]
assert not any(name.split(".")[0] == "autoprune" for name in sys.modules)
"""


@pytest.fixture(scope="module")
def dense(llama):
    return causal_lm(llama)


@pytest.fixture(scope="module")
def structure(dense):
    return find_structure(dense, (Example((IDS,)), Example(padded_inputs(dense, (IDS,)), name="padded")))


def pruned(dense, structure, kept):
    """The network that keeps the first positions of units, by words in their names; and the facts of its export."""
    counts = {unit.name: n for unit in structure.units for word, n in kept.items() if word in unit.name}
    positions = {name: np.arange(count) for name, count in counts.items()}
    facts = ExportFacts(dense, make_recipe(structure, positions), {"macs": 10, "perplexity": 2.5})
    return cut(dense, structure, positions).eval(), facts


def cut_logits(dense, structure, kept):
    with torch.no_grad():
        return pruned(dense, structure, kept)[0](IDS).logits


def written(network, facts, folder):
    folder.mkdir()
    TransformersExporter().write(network, facts, (IDS,), folder)
    return folder


@pytest.mark.slow
def test_layers_of_different_sizes_and_without_a_branch_load_with_code(dense, structure, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    kept = {"embed_tokens": 11, "head_dim": 2, "layers.0.mlp.gate": 7, "layers.1.self_attn/branch": 0}
    network, facts = pruned(dense, structure, kept)
    folder = written(network, facts, tmp_path / "small")
    loaded = causal_lm(folder, trust_remote_code=True)  # checked by the exporter as well, by other means
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, network(IDS).logits)
        assert not torch.equal(loaded(IDS).logits, dense(IDS).logits)
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    with torch.no_grad():
        assert torch.equal(causal_lm(again, trust_remote_code=True)(IDS).logits, network(IDS).logits)
    card = (folder / "README.md").read_text()
    assert "| perplexity | 2.5 |" in card
    assert 'AutoModelForCausalLM.from_pretrained("FOLDER", trust_remote_code=True)' in card
    assert (folder / "tokenizer.json").exists()


@pytest.mark.parametrize("kept", [{"gate_proj": 12}, {"heads/1": 1}, {"embed_tokens": 8, "gate_proj": 5}])
def test_a_uniform_network_is_a_checkpoint_of_the_plain_class(dense, structure, tmp_path, kept):
    network, facts = pruned(dense, structure, kept)
    folder = written(network, facts, tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    assert "auto_map" not in config
    assert config["architectures"] == ["LlamaForCausalLM"]
    loaded = causal_lm(folder)
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, network(IDS).logits)
    assert "trust_remote_code" not in (folder / "README.md").read_text()


EMPTIED = {"layers.0.self_attn/branch": 0, "layers.0.mlp/branch": 0}


@pytest.mark.parametrize(("also", "code"), [({"gate_proj": 9}, False), ({"layers.1.self_attn/branch": 0}, True)])
def test_layers_of_which_nothing_is_left_are_not_written(dense, structure, tmp_path, monkeypatch, also, code):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    network, facts = pruned(dense, structure, {**EMPTIED, **also})
    folder = written(network, facts, tmp_path / f"small_{code}")
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 1
    assert ("auto_map" in config) == code
    loaded = causal_lm(folder, trust_remote_code=code)
    assert len(loaded.model.layers) == 1
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, network(IDS).logits)


def test_weights_are_read_from_and_written_to_several_files(dense, structure, tmp_path):
    dense.save_pretrained(tmp_path / "dense", max_shard_size="5KB")
    assert len(list((tmp_path / "dense").glob("model-*.safetensors"))) > 1
    sharded = causal_lm(tmp_path / "dense")
    network, facts = pruned(sharded, structure, {"gate_proj": 12})
    folder = tmp_path / "small"
    folder.mkdir()
    TransformersExporter(max_shard_size="5KB").write(network, facts, (IDS,), folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    with torch.no_grad():
        assert torch.equal(causal_lm(folder)(IDS).logits, cut_logits(dense, structure, {"gate_proj": 12}))


def test_the_card_says_how_the_network_was_made(dense, structure, tmp_path):
    network, facts = pruned(dense, structure, {"gate_proj": 12})
    job = {"model": {"path": "/home/someone/llama"}, "data": {"text": "/home/someone/story.txt", "length": 16}}
    origin = {"job": job, "examples": {"calibrate": 20, "report": 9}}
    measured = {"candidate": "2-2", "macs": 10}
    folder = written(network, ExportFacts(dense, facts.recipe, measured, origin), tmp_path / "small")
    card = (folder / "README.md").read_text()
    assert "autoprune export RUN --pick 2-2 --out FOLDER --format transformers" in card
    assert "Examples: 20 to calibrate, 9 to report." in card
    assert "text: story.txt" in card
    assert "someone" not in card


def test_a_network_of_no_class_of_transformers_is_refused(dense, structure, tmp_path):
    network, facts = pruned(dense, structure, {"gate_proj": 12})
    other = ExportFacts(nn.Linear(2, 2), facts.recipe, {})
    with pytest.raises(ExportError, match="of a class of transformers that .* read, got a Linear"):
        written(network, other, tmp_path / "small")
    assert isinstance(find_exporter("transformers"), TransformersExporter)


def test_a_network_whose_class_cannot_hold_its_widths_is_refused(dense, structure, tmp_path):
    network, facts = pruned(dense, structure, {"gate_proj": 12})
    adapted = dataclasses.replace(facts.recipe, adapted=("model.layers.0.mlp",))
    with pytest.raises(ExportError, match="transformers can run alone, got adapters in model.layers.0.mlp"):
        written(network, dataclasses.replace(facts, recipe=adapted), tmp_path / "small")


def test_a_network_that_computes_something_else_is_refused(dense, structure, tmp_path):
    network, facts = pruned(dense, structure, {"layers.0.mlp.gate": 12})
    network.register_forward_hook(lambda module, args, output: output.__setitem__("logits", output.logits + 1))
    with pytest.raises(ExportError, match="the network's outputs to the bit, they differ"):
        written(network, facts, tmp_path / "small")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "code"), [({"layers.0.mlp.gate": 7, "head_dim": 2}, "own"), ({"gate_proj": 9}, "none")]
)
def test_a_process_without_autoprune_computes_the_same(dense, structure, tmp_path, kept, code):
    network, facts = pruned(dense, structure, kept)
    folder = written(network, facts, tmp_path / "small")
    torch.save({"ids": IDS}, tmp_path / "ids")
    environment = {**os.environ, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", READ, str(folder), str(tmp_path / "ids"), code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "ids.logits"), network(IDS).logits)
