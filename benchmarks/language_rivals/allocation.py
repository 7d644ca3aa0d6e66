"""Widths within a budget from scores of heads and neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from language_rivals.decoder import Kept
from language_rivals.setting import Budget, Setting


@dataclass(frozen=True)
class Scores:
    """Scores of query heads (layers, heads), or of groups of them with their keys and values, and (layers, neurons)."""

    heads: torch.Tensor
    neurons: torch.Tensor

    def kept(self, setting: Setting, heads: torch.Tensor, neurons: torch.Tensor) -> Kept:
        """What stays, by masks of the scores' shapes."""
        return Kept(heads.repeat_interleave(setting.model.config.num_attention_heads // heads.shape[1], dim=1), neurons)


def protected(scores: Scores, layers: Sequence[int]) -> Scores:
    """Scores with which nothing of these layers goes before all of the others has gone."""
    raised = Scores(scores.heads.clone(), scores.neurons.clone())
    raised.heads[list(layers)], raised.neurons[list(layers)] = torch.inf, torch.inf
    return raised


def uniform(scores: Scores, setting: Setting, budget: Budget, *, biased: bool = False) -> Iterator[tuple[int, Kept]]:
    """For each number of heads in a layer, the number and what stays with as many neurons as fit into the budget.

    All layers keep the same numbers, but for those with infinite scores, which keep everything.
    """

    def top(values: torch.Tensor, count: int) -> torch.Tensor:
        ranks = values.argsort(dim=1, descending=True).argsort(dim=1)
        return (ranks < count) | values.isinf()

    for heads in range(scores.heads.shape[1], 0, -1):

        def kept(neurons: int, heads: int = heads) -> Kept:
            return scores.kept(setting, top(scores.heads, heads), top(scores.neurons, neurons))

        most = largest(lambda count: setting.fits(kept(count), budget, biased=biased), scores.neurons.shape[1])
        if most:
            yield heads, kept(most)
        if most == scores.neurons.shape[1]:  # fewer heads would only be fewer
            return


def ranked(scores: Scores, setting: Setting, budget: Budget, *, biased: bool = False) -> Kept:
    """What stays when the lowest scores of the whole network go until the budget is met."""
    values = torch.cat([scores.heads.flatten(), scores.neurons.flatten()])
    ranks = values.argsort(stable=True).argsort()

    def kept(count: int) -> Kept:
        stay = ranks >= len(values) - count
        heads, neurons = stay.split([scores.heads.numel(), scores.neurons.numel()])
        return scores.kept(setting, heads.view_as(scores.heads), neurons.view_as(scores.neurons))

    return kept(largest(lambda count: setting.fits(kept(count), budget, biased=biased), len(values)))


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest count up to `most` that fits, where all smaller ones fit too; 0 if none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
