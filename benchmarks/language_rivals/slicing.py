"""SliceGPT: the residual stream rotated to its principal components before every branch, and the last ones cut off."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from language_rivals.allocation import largest
from language_rivals.decoder import arguments
from language_rivals.setting import Pruned, Setting


def slice_gpt(setting: Setting) -> Iterator[Pruned]:
    """Networks with the largest stream within each budget.

    Components are those of the stream, or of the stream as it is normalised before a branch.

    Source:
        Ashkboos et al., SliceGPT, 2024, https://arxiv.org/abs/2401.15024. The scales of norms go into the weights that
        read them, and the products Q' Q of successive rotations stay on the residual connections.
    """
    for budget in setting.budgets:

        def fits(width: int, budget: Any = budget) -> bool:
            return sliced_ratios(setting, width)[budget.cost] <= budget.share

        width = largest(fits, setting.model.config.hidden_size)
        for normalised in (False, True):
            note = "normalised stream" if normalised else "stream"
            network = sliced(setting, width, normalised=normalised)
            yield Pruned(network, sliced_ratios(setting, width), f"{width} components of the {note}")


def sliced_ratios(setting: Setting, width: int) -> dict[str, float]:
    found = sliced_costs(setting.model.config, setting.length, width)
    return {name: value / setting.dense_costs[name] for name, value in found.items()}


def sliced_costs(config: Any, length: int, width: int) -> dict[str, int]:
    """As decoder.costs, with two matrices of width x width a layer; embedding and head differ, so both are counted."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    layer = 2 * width * config.head_dim * (heads + groups) + 3 * width * config.intermediate_size + 2 * width**2
    weights, embedding = config.num_hidden_layers * layer, config.vocab_size * width
    products = 2 * length * config.head_dim * heads * config.num_hidden_layers
    return {"macs": length * (weights + products + embedding), "params": weights + 2 * embedding}


class Norm(nn.Module):
    """A root mean square norm without scale, over `width` entries of which the last ones may be cut off."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.width, self.epsilon = width, epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) / self.width + self.epsilon)


class SlicedLayer(nn.Module):
    """A layer between rotated and cut streams; `turns` are the products of rotations on both residual connections."""

    def __init__(self, attention: nn.Module, mlp: nn.Module, norm: Norm) -> None:
        super().__init__()
        self.attention, self.mlp, self.norm = attention, mlp, norm
        self.turns = nn.ParameterList()

    def attended(self, stream: torch.Tensor, turn: torch.Tensor, **given: Any) -> torch.Tensor:
        return stream @ turn + self.attention(self.norm(stream), **given)[0]

    def transformed(self, stream: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        return stream @ turn + self.mlp(self.norm(stream))

    def forward(self, stream: torch.Tensor, **given: Any) -> torch.Tensor:
        return self.transformed(self.attended(stream, self.turns[0], **given), self.turns[1])


@torch.no_grad()
def sliced(setting: Setting, width: int, *, normalised: bool) -> nn.Module:
    """The network whose stream keeps `width` components, found layer by layer with what was cut before."""
    config = setting.model.config
    network = copy.deepcopy(setting.model)
    decoder, norm = network.model, Norm(config.hidden_size, config.rms_norm_eps)
    given = arguments(setting.model, setting.calibrate[0])
    embedding = decoder.embed_tokens.weight.data
    signals = [embedding[tokens] for tokens in setting.calibrate]
    basis = components(signals, norm if normalised else nn.Identity())[:, :width]
    streams = [x @ basis for x in signals]
    head = linear(network.lm_head.weight.data * decoder.norm.weight.data)
    decoder.embed_tokens = nn.Embedding.from_pretrained(embedding @ basis)
    for number, layer in enumerate(decoder.layers):
        part = folded(layer, norm)
        for branch, (readers, writer) in enumerate(branch_weights(part)):
            for reader in readers:
                set_weight(reader, reader.weight.data @ basis)
            run = part.transformed if branch else lambda x, turn, part=part: part.attended(x, turn, **given)
            signals = [run(x, basis.T) for x in streams]
            following = components(signals, norm if normalised else nn.Identity())[:, :width]
            set_weight(writer, following.T @ writer.weight.data)
            part.turns.append(nn.Parameter(basis.T @ following))
            streams, basis = [x @ following for x in signals], following
        decoder.layers[number] = part
    decoder.norm = norm
    set_weight(head, head.weight.data @ basis)
    network.lm_head = head
    return network


def components(signals: Sequence[torch.Tensor], scaled: nn.Module) -> torch.Tensor:
    """(width, width) principal components in columns, the largest first."""
    square = sum((rows.T @ rows).double() for rows in (scaled(x).flatten(0, 1) for x in signals))
    return torch.linalg.eigh(square).eigenvectors.flip(1).to(signals[0].dtype)


def folded(layer: nn.Module, norm: Norm) -> SlicedLayer:
    """The layer with the scales of its norms in the weights that read them."""
    part = SlicedLayer(layer.self_attn, layer.mlp, norm)
    scales = layer.input_layernorm.weight.data, layer.post_attention_layernorm.weight.data
    for (readers, _), scale in zip(branch_weights(part), scales, strict=True):
        for reader in readers:
            set_weight(reader, reader.weight.data * scale)
    return part


def branch_weights(part: SlicedLayer) -> Iterator[tuple[Sequence[nn.Linear], nn.Linear]]:
    """The layers that read the stream, and the one that writes to it, of both branches."""
    attention, mlp = part.attention, part.mlp
    yield (attention.q_proj, attention.k_proj, attention.v_proj), attention.o_proj
    yield (mlp.gate_proj, mlp.up_proj), mlp.down_proj


def set_weight(module: nn.Linear, weight: torch.Tensor) -> None:
    module.weight = nn.Parameter(weight, requires_grad=False)
    module.out_features, module.in_features = weight.shape


def linear(weight: torch.Tensor) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    set_weight(module, weight)
    return module
