"""2SSP: neurons of all MLPs by their activations, then whole attentions by perplexity."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import nn

from autoprune.measure.batch import Batch
from language_rivals.allocation import largest
from language_rivals.decoder import Kept, everything
from language_rivals.depth import branches, greedy
from language_rivals.setting import Budget, Pruned, Setting, perplexity

ALPHA = 1.5


def two_stage(setting: Setting) -> Iterator[Pruned]:
    """Networks with each possible number of removed attentions; options name the published one.

    Source:
        Sandri, Cunegatti and Iacca, 2SSP, 2025, https://arxiv.org/abs/2501.17771. The number of removed attentions is
        round(B s^(r / alpha)), with B layers, the share s of the layers' cost that goes, and r the cost of an MLP over
        that of an attention; all MLPs lose the same number of neurons, those of least mean norm over sequences. The
        second stage takes the perplexity on one batch of sequences, where the source takes one sequence.
    """
    for budget in setting.budgets:
        published = published_count(setting, budget)
        for count in range(setting.model.config.num_hidden_layers):
            if (kept := first_stage(setting, budget, count)) is not None:
                options = f"{count} attentions removed{' as published' if count == published else ''}"
                yield setting.pruned(second_stage(setting, kept, count), options)


def published_count(setting: Setting, budget: Budget) -> int:
    layers = setting.model.config.num_hidden_layers
    whole = everything(setting.model.config)
    parts = whole.without(attention=range(layers)), whole.without(mlp=range(layers))
    attention, mlp = (1 - setting.ratios(rest)[budget.cost] for rest in parts)  # shares of the dense cost
    return attention_count(layers, (1 - budget.share) / (attention + mlp), mlp / attention)


def attention_count(layers: int, share: float, ratio: float) -> int:
    """The number of attentions that go with a share of the layers' cost, if an MLP costs `ratio` attentions."""
    return round(layers * share ** (ratio / ALPHA))


def first_stage(setting: Setting, budget: Budget, count: int) -> Kept | None:
    """Everything but neurons, so many that the budget is met once `count` attentions are gone; None if it cannot be."""
    norms = torch.stack([moments.norms for moments in setting.moments[1::2]])
    ranks = norms.argsort(dim=1, descending=True).argsort(dim=1)
    whole = everything(setting.model.config)

    def kept(neurons: int) -> Kept:
        return Kept(whole.heads, ranks < neurons)

    gone = range(count)
    most = largest(lambda neurons: setting.fits(kept(neurons).without(gone), budget), norms.shape[1])
    return kept(most) if most else None


def second_stage(setting: Setting, kept: Kept, count: int) -> Kept:
    attentions = [part for part in branches(setting) if part[0]]

    def damage(network: nn.Module) -> float:
        return perplexity(network, [Batch((setting.calibrate[0],), setting.calibrate[0])])

    return list(islice(greedy(setting, attentions, damage, kept), count))[-1] if count else kept
