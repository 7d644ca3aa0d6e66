"""The fitness of language models: means over the tokens that the network predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import DataError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.outputs import angles, dense_tensor, described, main_tensor
from autoprune.measure.top_classes import TopClasses

IGNORED = -100  # the label of a token that is not predicted, such as padding, as in torch and transformers
RESAMPLES = 1000  # number of bootstrap samples of an interval
SHARES = 0.025, 0.975  # the quantiles at its ends

Logits = torch.Tensor | TopClasses


def language_model(
    model: nn.Module,
    batches: Sequence[Batch],
    report: Sequence[str] = ("perplexity", "kl"),
    *,
    interval: bool = False,
) -> dict[str, float]:
    """Measures a network that returns (b, tokens, vocabulary) logits of the next tokens, as means over all tokens.

    Every token counts the same, whatever the length of its sequence. The targets are (b, tokens) labels beside the
    inputs: the logits at a token are compared with the label of the token after it. Labels of -100 are not predicted.

    Args:
        model: the network.
        batches: the sequences.
        report: names of the measures to return. `perplexity` is exp of `loss`, which is the cross entropy in nats.
            `kl` is sum p (log p - log q) in nats, with p the dense network's probabilities and q the pruned network's;
            of more than 8,192 tokens in the vocabulary the dense network's 1,024 most likely ones and all others
            together are compared, which gives a lower bound (top_classes.py). `angular` is the angle between the
            logits of both networks, as a share of a half turn.
        interval: also returns `perplexity_low` and `perplexity_high`, the 95 % confidence interval of the perplexity,
            by a bootstrap over sequences, whose tokens depend on each other.

    Returns:
        The measures by name.

    Raises:
        PluginError: a name in `report` is unknown, or the network does not return such logits.
        DataError: there is no batch, a batch lacks labels or dense outputs, or no label is counted.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: the percentile interval.
    """
    unknown = [name for name in report if name not in LANGUAGE_MEASURES]
    if unknown:
        known = ", ".join(LANGUAGE_MEASURES)
        raise PluginError(f"language_model can report {known}; got {', '.join(map(repr, unknown))}")
    if not batches:
        raise DataError("language_model needs at least one batch, got none")
    names = dict.fromkeys("loss" if name == "perplexity" else name for name in (*report, *["loss"] * interval))
    rows = [row for batch in batches for row in _measured_rows(model, batch, tuple(names))]
    sums = torch.tensor(rows, dtype=torch.float64)  # (sequences, tokens and measures)
    tokens = sums[:, 0].sum()
    if not tokens:
        raise DataError(f"language_model needs labels that are not {IGNORED}, got none in {len(rows)} sequences")
    means = dict(zip(names, (sums[:, 1:].sum(dim=0) / tokens).tolist(), strict=True))
    ends = _perplexity_interval(sums[:, [0, 1 + list(names).index("loss")]]) if interval else {}
    return {name: _exp(means["loss"]) if name == "perplexity" else means[name] for name in report} | ends


def _measured_rows(model: nn.Module, batch: Batch, names: Sequence[str]) -> Iterator[list[float]]:
    """The number of predicted tokens of each sequence, and the sums of the measures over them."""
    logits, labels = _logits(model(*batch.inputs)), _labels(batch)
    if logits.shape[:2] != labels.shape:
        raise DataError(
            f"language_model expects a label for each token, got logits of shape {tuple(logits.shape)} and targets of "
            f"shape {tuple(labels.shape)}"
        )
    dense = _dense_rows(batch) if {"kl", "angular"}.intersection(names) else [None] * len(labels)
    for row, label, other in zip(logits, labels, dense, strict=True):  # one by one, since float32 logits are large
        counted = label[1:] != IGNORED
        chosen, target = row[:-1][counted].float(), label[1:][counted]
        sums = [LANGUAGE_MEASURES[name](chosen, target, _predicting(other, counted)) for name in names]
        yield [float(counted.sum()), *map(float, sums)]


def _dense_rows(batch: Batch) -> Sequence[Logits]:
    """The dense network's outputs, one sequence after the other."""
    if isinstance(batch.dense, TopClasses):
        top = batch.dense
        return [TopClasses(*parts, top.classes) for parts in zip(top.indices, top.log_p, top.log_rest, strict=True)]
    return list(dense_tensor(batch))


def _predicting(dense: Logits | None, counted: torch.Tensor) -> Logits | None:
    """A sequence's dense outputs at the tokens before the (tokens - 1,) counted ones."""
    if isinstance(dense, TopClasses):
        indices, log_p, log_rest = (part[:-1][counted] for part in (dense.indices, dense.log_p, dense.log_rest))
        return TopClasses(indices, log_p, log_rest, dense.classes)
    return None if dense is None else dense[:-1][counted]


def _logits(output: object) -> torch.Tensor:
    logits = main_tensor(output)
    if isinstance(logits, torch.Tensor) and logits.dim() == 3 and logits.is_floating_point():
        return logits
    raise PluginError(
        f"language_model expects a network that returns (b, tokens, vocabulary) logits, got {described(output)}. Set "
        "fitness to autoprune.measure.fitness:classification for a classifier, or :embedding for an encoder."
    )


def _labels(batch: Batch) -> torch.Tensor:
    if batch.target is None:
        raise DataError("language_model needs labels: give select and report batches targets, the inputs themselves")
    return batch.target


def _loss(logits: torch.Tensor, target: torch.Tensor, dense: Logits | None) -> torch.Tensor:
    return functional.cross_entropy(logits, target, reduction="sum")


def _kl(logits: torch.Tensor, target: torch.Tensor, dense: Logits | None) -> torch.Tensor:
    if isinstance(dense, TopClasses):
        return dense.divergence(logits).sum()
    assert dense is not None
    log_q, log_p = functional.log_softmax(logits, dim=-1), functional.log_softmax(dense.float(), dim=-1)
    return functional.kl_div(log_q, log_p, reduction="sum", log_target=True)


def _angular(logits: torch.Tensor, target: torch.Tensor, dense: Logits | None) -> torch.Tensor:
    assert isinstance(dense, torch.Tensor)  # what measure.fitness keeps of the dense network for this measure
    return angles(logits, dense.float()).sum()


LANGUAGE_MEASURES: dict[str, Callable[[torch.Tensor, torch.Tensor, Logits | None], torch.Tensor]] = {
    "perplexity": _loss,
    "loss": _loss,
    "kl": _kl,
    "angular": _angular,
}


def _perplexity_interval(sums: torch.Tensor) -> dict[str, float]:
    """The ends of the interval, from (sequences, 2) numbers of tokens and sums of losses."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(sums), (RESAMPLES, len(sums)), generator=generator)
    tokens, losses = sums[drawn].sum(dim=1).unbind(dim=1)
    means = (losses / tokens)[tokens > 0]
    low, high = torch.quantile(means, torch.tensor(SHARES, dtype=means.dtype)).tolist()
    return {"perplexity_low": _exp(low), "perplexity_high": _exp(high)}


def _exp(loss: float) -> float:
    """exp, infinite where it overflows."""
    return math.exp(loss) if loss < 709 else math.inf
