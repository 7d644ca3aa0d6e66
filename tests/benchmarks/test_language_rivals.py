"""The re-enacted methods of benchmarks/language_rivals, on a random Llama of three layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from language_rivals import depth, linear_map, slicing, two_stage, widths
from language_rivals.decoder import Kept, costs, cut, everything, projections
from language_rivals.refit import refitted
from language_rivals.setting import Budget, Setting
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.measure.batch import Batch

pytestmark = pytest.mark.slow
LENGTH = 12
SIZES = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "use_cache": False, "attn_implementation": "eager",
}  # fmt: skip


def llama(**sizes: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**(SIZES | sizes), pad_token_id=None)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def setting() -> Setting:
    model = llama()
    for name, value in model.named_parameters():
        value.data = 1 + value.data.uniform_(-0.5, 0.5) if "norm" in name else value.data.normal_(std=0.3)
    tokens = torch.randint(0, 32, (2, 8, LENGTH), generator=torch.Generator().manual_seed(1))
    return Setting(model, list(tokens), [Batch((tokens[0],), tokens[0])], [Budget("macs", 0.6)])


def logits(model: nn.Module, setting: Setting) -> torch.Tensor:
    with torch.no_grad():
        return model(setting.calibrate[0]).logits


def half(setting: Setting) -> Kept:
    """The first group of heads and the first half of the neurons."""
    whole = everything(setting.model.config)
    return Kept(whole.heads & (torch.arange(4) < 2), whole.neurons & (torch.arange(24) < 12))


def truly_smaller(setting: Setting) -> nn.Module:
    """The network of `half` with smaller weights."""
    small = llama(intermediate_size=12, num_attention_heads=2, num_key_value_heads=1)
    for name, value in small.named_parameters():
        dense = setting.model.get_parameter(name)
        value.data = dense.data[tuple(slice(size) for size in value.shape)].clone()
    return small


def test_zeros_give_the_outputs_of_a_network_with_smaller_weights(setting: Setting) -> None:
    small = truly_smaller(setting)
    assert logits(cut(setting.model, half(setting)), setting) == pytest.approx(logits(small, setting), abs=1e-5)


def test_costs_are_those_of_the_network_with_smaller_weights(setting: Setting) -> None:
    small, found = truly_smaller(setting), costs(setting.model.config, half(setting), LENGTH)
    assert found == {"macs": counted_macs(small), "params": sum(p.numel() for p in small.parameters())}


def counted_macs(model: nn.Module) -> int:
    """The MACs of one sequence, as torch counts them while it runs, without the rotary tables."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, LENGTH, dtype=torch.long))
    flops = counter.get_flop_counts()
    return (sum(flops["Global"].values()) - sum(flops.get("LlamaRotaryEmbedding", {}).values())) // 2


@pytest.mark.parametrize("normalised", [False, True])
def test_slicing_nothing_leaves_the_outputs_as_they_are(setting: Setting, normalised: bool) -> None:
    network = slicing.sliced(setting, 16, normalised=normalised)
    assert logits(network, setting) == pytest.approx(logits(setting.model, setting), abs=1e-4)


def test_costs_of_a_sliced_network_are_those_of_its_weights(setting: Setting) -> None:
    network = slicing.sliced(setting, 10, normalised=False)
    found = slicing.sliced_costs(setting.model.config, LENGTH, 10)
    assert found == {"macs": counted_macs(network), "params": sum(p.numel() for p in network.parameters())}


@pytest.mark.parametrize("sequential", [False, True])
def test_a_fit_of_all_inputs_leaves_the_outputs_as_they_are(setting: Setting, sequential: bool) -> None:
    network = refitted(setting, everything(setting.model.config), 1e-2, sequential=sequential)
    assert logits(network, setting) == pytest.approx(logits(setting.model, setting), abs=1e-4)


@pytest.mark.parametrize("sequential", [False, True])
def test_a_fit_recovers_what_inputs_that_stay_can_express(setting: Setting, sequential: bool) -> None:
    for layer in setting.model.model.layers:
        for reader in (layer.mlp.gate_proj, layer.mlp.up_proj):
            reader.weight.data[12:] = reader.weight.data[:12]
    kept = replace(half(setting), heads=everything(setting.model.config).heads)
    network = refitted(setting, kept, 1e-9, sequential=sequential)
    assert logits(network, setting) == pytest.approx(logits(setting.model, setting), abs=1e-3)


def test_the_biases_of_flap_keep_the_mean_of_an_output(setting: Setting) -> None:
    network = widths.with_biases(setting, half(setting), "").network
    means = [output_mean(model, setting) for model in (setting.model, network)]
    assert means[1] == pytest.approx(means[0], abs=1e-5)


def output_mean(model: nn.Module, setting: Setting) -> torch.Tensor:
    """The mean output of the first projection, whose inputs are those of the dense network."""
    rows: list[torch.Tensor] = []
    handle = projections(model)[0].register_forward_hook(lambda module, inputs, output: rows.append(output))
    with torch.no_grad():
        for tokens in setting.calibrate:
            model(tokens)
    handle.remove()
    return torch.cat(rows).mean(dim=(0, 1))


def test_a_layer_without_effect_goes_first_and_its_map_is_the_identity(setting: Setting) -> None:
    layer = setting.model.model.layers[1]
    for module in (layer.self_attn.o_proj, layer.mlp.down_proj):
        module.weight.data.zero_()
    first = next(depth.shortgpt(setting))
    assert [bool(heads.any()) for heads in first.kept.heads] == [True, False, True]
    assert logits(first.network, setting) == pytest.approx(logits(setting.model, setting), abs=1e-5)
    assert linear_map.spans(setting)[0] == (1, 2)
    assert linear_map.linear_map(setting, 1, 2, 1e-9) == pytest.approx(torch.eye(16), abs=1e-4)


@pytest.mark.parametrize(("share", "count"), [(0.25, 1), (0.375, 2), (0.5, 5)])
def test_2ssp_removes_as_many_attentions_of_llama_3_8b_as_published(share: float, count: int) -> None:
    assert two_stage.attention_count(32, share, 4.2) == count


def test_widths_are_the_largest_within_the_budget(setting: Setting) -> None:
    for pruned in widths.wanda_sp(setting):
        assert pruned.ratios["macs"] <= 0.6
        wider = pruned.kept.neurons.sum(dim=1)[0] + 1
        more = Kept(pruned.kept.heads, (torch.arange(24) < wider).repeat(3, 1))
        assert wider == 25 or setting.ratios(more)["macs"] > 0.6
