"""What module classes need beside sliced tensors: other forwards where theirs insist on sizes, and fixes after surgery.

Most classes need nothing: integers they keep are found and set by themselves (sizes.py). `nn.MultiheadAttention`
derives the size of a head from the width of its input, so that no head could go without changing everything around;
`FreeAttention` computes the same from the same parameters and takes the number and size of heads as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

Module = TypeVar("Module", bound=nn.Module)
ADAPTERS: dict[type[nn.Module], type[nn.Module]] = {}
FIXES: dict[type[nn.Module], Callable[[nn.Module], None]] = {}


def adapter(original: type[nn.Module]) -> Callable[[type[Module]], type[Module]]:
    """Gives the instances of a module class another class, a subclass of it, when a network is analysed and pruned.

    The subclass has the same parameters and computes the same; an `adapt(self)` method, if there is one, is called once
    on an instance that has just got the class.
    """

    def register(subclass: type[Module]) -> type[Module]:
        ADAPTERS[original] = subclass
        return subclass

    return register


def fix(original: type[nn.Module]) -> Callable[[Callable[[nn.Module], None]], Callable[[nn.Module], None]]:
    """Registers what to do with a module of a class (or a subclass) after its tensors were sliced: put right what it
    keeps of their sizes where nobody can see it. A number that changes what is computed, such as a scale, is no such
    thing: it stays as it was trained, also in what the small network is compared with.

    >>> @autoprune.fix(Checked)
    ... def checked(module):
    ...     module.wanted["features"] = module.weight.shape[1]
    """

    def register(function: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
        FIXES[original] = function
        return function

    return register


def adapt(model: nn.Module, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Gives modules their adapter's class, in place: the named ones, or all that have one. Returns their names."""
    adapted = []
    for name in list(names) if names is not None else [name for name, _ in model.named_modules()]:
        module = model.get_submodule(name)
        if type(module) in ADAPTERS:
            module.__class__ = ADAPTERS[type(module)]
            getattr(module, "adapt", lambda: None)()
            adapted.append(name)
    return tuple(adapted)


def apply_fixes(model: nn.Module) -> None:
    """Calls every registered fix on the modules it is for, in place."""
    for module in model.modules():
        for original, function in FIXES.items():
            if isinstance(module, original):
                function(module)


@adapter(nn.MultiheadAttention)
class FreeAttention(nn.MultiheadAttention):
    """Multi-head attention whose heads, and their size, are independent of the width of its input.

    The scale of the scores is that of the dense network, whatever size heads have left.
    """

    scale: float

    def adapt(self) -> None:
        self.scale = self.head_dim**-0.5
        self._qkv_same_embed_dim = False  # layers of torch take this as a reason not to use a fused kernel

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
        """As nn.MultiheadAttention."""
        if is_causal and attn_mask is None:
            raise RuntimeError("expected attn_mask beside is_causal, which only hints at what is in it")
        batched = query.dim() == 3
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            key_padding_mask = key_padding_mask.unsqueeze(0) if key_padding_mask is not None else None
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q, k, v = self._projected(query, key, value)
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.scale
            weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = functional.dropout(weights, dropout) if dropout else weights
            output = weights @ v
        else:
            output = functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        output = self.out_proj(output.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return output.squeeze(0), weights.squeeze(0) if weights is not None else None
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _projected(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys and values, (batch, heads, tokens, head size) each."""
        if self.in_proj_weight is not None:
            projections = self.in_proj_weight.chunk(3)
        else:
            projections = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None, None, None)
        q, k, v = (functional.linear(x, w, b) for x, w, b in zip((query, key, value), projections, biases, strict=True))
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1)], dim=1)
        if self.add_zero_attn:
            k, v = functional.pad(k, (0, 0, 0, 1)), functional.pad(v, (0, 0, 0, 1))
        return [x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2) for x in (q, k, v)]

    def _mask(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        key_padding_mask: torch.Tensor | None,
        attn_mask: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """What is added to the scores, broadcast to (batch, heads, queries, keys); None for nothing."""
        total = None
        if attn_mask is not None:
            mask = _additive(attn_mask, q)
            total = mask if mask.dim() == 2 else mask.reshape(len(q), -1, *mask.shape[1:])
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q)[:, None, None, :]
            total = padding if total is None else total + padding
        if total is None:
            return None
        added = k.shape[2] - total.shape[-1]  # the positions that bias_k and add_zero_attn appended
        return functional.pad(total, (0, added)) if added else total


def _additive(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A boolean mask (True = not attended to) as minus infinity and zero."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
