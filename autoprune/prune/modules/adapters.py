"""Attention with free heads: replaces `nn.MultiheadAttention` in pruned networks.

That class derives the size of a head from the width of its input, so that no head could be removed without changing
everything around. `FreeAttention` computes the same from the same parameters and takes the number and size of heads as
independent values. TorchScript compiles it, so it is written in the subset of Python that TorchScript supports.
"""

import torch
from torch import nn
from torch.nn import functional

from autoprune.prune.modules.adapting import adapter


@adapter(nn.MultiheadAttention)
class FreeAttention(nn.MultiheadAttention):
    """Multi-head attention whose number and size of heads are independent of the width of its input.

    The scale of the scores is that of the dense network, whatever the remaining size of heads. A nested tensor may be
    given as query, key and value at once, as `nn.TransformerEncoder` does with padded sequences; the output is nested
    then.
    """

    scale: float

    def adapt(self) -> None:
        self.scale = self.head_dim**-0.5
        self._qkv_same_embed_dim = False  # keeps torch's layers from using a fused kernel

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Same arguments and outputs as nn.MultiheadAttention."""
        if is_causal and attn_mask is None:
            raise RuntimeError("expected attn_mask together with is_causal, which only describes it")
        if query.is_nested:
            if query is not key or key is not value or attn_mask is not None or key_padding_mask is not None:
                raise RuntimeError("expected a nested query to be key and value, too, and no masks beside it")
            return self._attend_nested(query, need_weights, average_attn_weights)
        if query.dim() == 3:
            if not self.batch_first:
                query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
            output, weights = self._attend(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
            return (output if self.batch_first else output.transpose(0, 1)), weights
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
        output, weights = self._attend(
            query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
        return output.squeeze(0), None if weights is None else weights.squeeze(0)

    def _attend_nested(
        self, x: torch.Tensor, need_weights: bool, average_attn_weights: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention within each of several sequences of different lengths; weights are padded with zeros."""
        padded = x.to_padded_tensor(0.0)
        lengths = torch.tensor([sequence.shape[0] for sequence in x.unbind()], device=padded.device)
        padding = torch.arange(padded.shape[1], device=padded.device).unsqueeze(0) >= lengths.unsqueeze(1)
        output, weights = self._attend(padded, padded, padded, padding, need_weights, None, average_attn_weights, False)
        if weights is not None:
            rows = padding.unsqueeze(-1) if average_attn_weights else padding.unsqueeze(1).unsqueeze(-1)
            weights = weights.masked_fill(rows, 0.0)
        return torch._nested_tensor_from_mask(output, padding.logical_not(), mask_check=False), weights

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None,
        need_weights: bool,
        attn_mask: torch.Tensor | None,
        average_attn_weights: bool,
        is_causal: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention of (batch, queries, width) to (batch, keys, width)."""
        hinted = is_causal and key_padding_mask is None and not need_weights  # is_causal is trusted then
        mask = self._mask(query, key, key_padding_mask, None if hinted else attn_mask)
        q, k, v = self._projected(query, key, value)
        if mask is not None:  # every query sees the keys that bias_k and add_zero_attn appended
            mask = functional.pad(mask, (0, k.shape[2] - key.shape[1]))
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            output = functional.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=hinted, scale=self.scale)
            return self.out_proj(output.transpose(1, 2).flatten(2)), None
        scores = q @ k.transpose(-2, -1) * self.scale
        weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
        if dropout > 0.0:
            weights = functional.dropout(weights, dropout)
        output = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        return output, weights.mean(dim=1) if average_attn_weights else weights

    def _projected(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, (batch, heads, tokens, head size) each."""
        if self.in_proj_weight is not None:
            q_weight, k_weight, v_weight = self.in_proj_weight.chunk(3)
        else:
            q_weight, k_weight, v_weight = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        if self.in_proj_bias is not None:
            q_bias, k_bias, v_bias = self.in_proj_bias.chunk(3)
            q = functional.linear(query, q_weight, q_bias)
            k = functional.linear(key, k_weight, k_bias)
            v = functional.linear(value, v_weight, v_bias)
        else:
            q = functional.linear(query, q_weight)
            k = functional.linear(key, k_weight)
            v = functional.linear(value, v_weight)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(k.shape[0], -1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(v.shape[0], -1, -1)], dim=1)
        if self.add_zero_attn:
            k, v = functional.pad(k, (0, 0, 0, 1)), functional.pad(v, (0, 0, 0, 1))
        return self._headed(q), self._headed(k), self._headed(v)

    def _headed(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        key_padding_mask: torch.Tensor | None,
        attn_mask: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """The values added to the scores, broadcast to (batch, heads, queries, keys); None if there are none."""
        total: torch.Tensor | None = None
        if attn_mask is not None:
            _check_mask(attn_mask, query.shape[0] * self.num_heads, query.shape[1], key.shape[1])
            total = _additive(attn_mask, query)
            if total.dim() == 3:
                total = total.reshape(query.shape[0], -1, total.shape[1], total.shape[2])
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, query).reshape(query.shape[0], 1, 1, key.shape[1])
            total = padding if total is None else total + padding
        return total


def _check_mask(mask: torch.Tensor, rows: int, queries: int, keys: int) -> None:
    """Raises RuntimeError unless a mask has the shape that nn.MultiheadAttention takes."""
    wanted = [queries, keys] if mask.dim() == 2 else [rows, queries, keys]
    if list(mask.shape) != wanted:
        raise RuntimeError(
            f"expected attn_mask to have the shape {wanted}, with {rows} rows for as many heads of all examples if it "
            f"has three dimensions, got {list(mask.shape)}"
        )


def _additive(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A boolean mask (True = not attended to) as minus infinity and zero."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
    if not mask.is_floating_point():
        raise RuntimeError("expected a mask of bool or of floating point numbers, got integers")
    return mask.to(like.dtype)
