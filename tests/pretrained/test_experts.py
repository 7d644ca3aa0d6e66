"""Mixtures of experts of transformers: scores by hand, networks with fewer experts, and their exports."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional

from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.criteria.ordering import criterion_inputs
from autoprune.prune.find import find_structure
from autoprune.prune.surgery.surgery import make_recipe

IDS = torch.arange(48).view(4, 12) * 7 % 19
EXPERTS = "model.layers.0.mlp.gate/experts"


@pytest.fixture(scope="module")
def mixture():
    """A Mixtral of one layer with four experts, of which a token meets two."""
    import transformers

    from autoprune.pretrained import named_inputs

    config = transformers.MixtralConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        num_local_experts=4, num_experts_per_tok=2, vocab_size=19, max_position_embeddings=32, bos_token_id=1,
        eos_token_id=2, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    return named_inputs(transformers.MixtralForCausalLM(config).eval())


@pytest.fixture(scope="module")
def structure(mixture):
    return find_structure(mixture, (IDS,))


def logits(network, ids=IDS):
    with torch.no_grad():
        return network(ids).logits


def routed(mixture):
    """(n, 4) weights of the router, 0 for experts that a token does not meet, and (n, 4, 8) outputs of all experts."""
    seen = []
    layer = mixture.model.layers[0].mlp
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    logits(mixture)
    hook.remove()
    x, experts = seen[0].flatten(0, 1), layer.experts
    chances = functional.softmax(x @ layer.gate.weight.T, dim=1)
    lowest = chances.sort(dim=1).values[:, 2:3]
    chances = torch.where(chances >= lowest, chances, 0.0)
    gate, up = torch.einsum("nd,ekd->nek", x, experts.gate_up_proj).chunk(2, dim=2)
    outputs = torch.einsum("nek,edk->ned", functional.silu(gate) * up, experts.down_proj)
    return (chances / chances.sum(dim=1, keepdim=True)).detach(), outputs.detach()


def scores(mixture, structure, name):
    unit = structure.unit(EXPERTS)
    ((_, weights, statistics),) = criterion_inputs(
        mixture, structure, [unit], {}, [(IDS[:1],), (IDS[1:],)], ["routing"]
    )
    return CRITERIA[name](weights, statistics).float()


def test_the_scores_of_reap_and_mone_are_their_formulas(mixture, structure):
    weights, outputs = routed(mixture)
    reap, mone = [], []
    for expert in range(4):
        rows = weights[:, expert] > 0
        own, gate = outputs[rows, expert], weights[rows, expert]
        reap.append((gate * own.norm(dim=1)).mean())
        mone.append(own.std(dim=0, correction=0).norm() * gate.sum())
    torch.testing.assert_close(scores(mixture, structure, "reap"), torch.stack(reap), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores(mixture, structure, "mone"), torch.stack(mone), rtol=1e-4, atol=1e-6)


def test_a_network_without_experts_computes_what_the_router_makes_without_them(mixture, structure):
    bank = make_bank(mixture, structure, [EXPERTS], CRITERIA["reap"], [(IDS,)])
    assert EXPERTS not in bank.notes
    kept = bank.subnet({EXPERTS: 2}).positions[EXPERTS]
    gone = sorted({*range(4)} - {*kept.tolist()})
    assert bank.orders[EXPERTS].tolist()[:2] == scores(mixture, structure, "reap").argsort(descending=True)[:2].tolist()
    small = bank.build(bank.subnet({EXPERTS: 2}))
    hook = mixture.model.layers[0].mlp.gate.register_forward_hook(
        lambda gate, args, made: _without(gone, gate, args[0])
    )
    try:
        torch.testing.assert_close(logits(small), logits(mixture), rtol=1e-4, atol=1e-5)
    finally:
        hook.remove()


def _without(gone, gate, x):
    """What a router returns that does not choose some experts."""
    made = x.flatten(0, -2) @ gate.weight.T
    made[:, gone] = -torch.inf
    chances, index = functional.softmax(made, dim=1).topk(2, dim=1)
    return made, chances / chances.sum(dim=1, keepdim=True), index


def test_units_of_other_kinds_are_ordered_by_obs_and_experts_by_reap(mixture, structure):
    names = [unit.name for unit in structure.units if unit.kind == "heads"]
    reap, obs = (make_bank(mixture, structure, [*names, EXPERTS], CRITERIA[name], [(IDS,)]) for name in ("reap", "obs"))
    assert {name: order.tolist() for name, order in reap.orders.items()} == {
        name: order.tolist() for name, order in obs.orders.items()
    }
    assert obs.notes[EXPERTS].startswith("ordered by reap, as none of its consumers has second moments")


def test_a_checkpoint_with_fewer_experts_is_one_of_the_plain_class(mixture, structure, tmp_path):
    from autoprune.pretrained import causal_lm
    from autoprune.pretrained.export import TransformersExporter
    from autoprune.run.results.exporter import ExportFacts

    bank = make_bank(mixture, structure, [EXPERTS], CRITERIA["mone"], [(IDS,)])
    subnet = bank.subnet({EXPERTS: 3})
    small = bank.build(subnet).eval()
    TransformersExporter().write(
        small, ExportFacts(mixture, make_recipe(structure, subnet.positions), {}), (IDS,), tmp_path
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert ("auto_map" in config, config["num_local_experts"]) == (False, 3)
    assert torch.equal(logits(causal_lm(tmp_path)), logits(small))
