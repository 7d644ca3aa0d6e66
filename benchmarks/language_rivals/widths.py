"""Methods that remove heads and neurons by a score: Wanda-sp, FLAP, LLM-Pruner and Wanda with least squares."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from language_rivals.allocation import Scores, protected, ranked, uniform
from language_rivals.decoder import Kept, cut, input_masks, projections
from language_rivals.gradients import weight_gradient_products
from language_rivals.moments import Moments
from language_rivals.refit import refitted
from language_rivals.setting import Pruned, Setting, best_within

UNITS = "heads", "groups"
RIDGES = 1e-3, 1e-2, 1e-1


def wanda_sp(setting: Setting) -> Iterator[Pruned]:
    """The norm of an input times the sum of absolute weights that read it, uniform widths.

    Source:
        An et al., Fluctuation-based Adaptive Structured Pruning, 2023, https://arxiv.org/abs/2312.11983, which extends
        Sun et al., A Simple and Effective Pruning Approach (Wanda), 2023. The share of heads is chosen besides.
    """
    for options, kept in wanda_widths(setting):
        yield setting.pruned(kept, options)


def wanda_least_squares(setting: Setting) -> Iterator[Pruned]:
    """What Wanda-sp keeps, with output projections fitted to the dense network's outputs by ridge regression.

    The numbers of heads are chosen with one ridge and inputs of the dense network, then for them the ridge, and whether
    the inputs of a fit are those of the network as fitted so far.
    """
    first = best_within(setting, (fitted(setting, kept, options) for options, kept in wanda_widths(setting)))
    for pruned in {id(chosen.pruned): chosen.pruned for chosen in first.values()}.values():
        yield pruned
        for ridge in RIDGES:
            yield fitted(setting, pruned.kept, pruned.options, ridge)
            yield fitted(setting, pruned.kept, pruned.options, ridge, sequential=True)


def wanda_widths(setting: Setting) -> Iterator[tuple[str, Kept]]:
    """Uniform widths within each budget, and their names."""
    for units in UNITS:
        scores = column_scores(setting, units, lambda moments, weight: moments.norm * weight.abs().sum(dim=0))
        for budget in setting.budgets:
            for heads, kept in uniform(scores, setting, budget):
                yield f"{heads} {units} a layer", kept


def fitted(setting: Setting, kept: Kept, options: str, ridge: float = RIDGES[1], *, sequential: bool = False) -> Pruned:
    network = refitted(setting, kept, ridge, sequential=sequential)
    inputs = "fitted" if sequential else "dense"
    widths = options.partition(",")[0]
    return Pruned(network, setting.ratios(kept), f"{widths}, ridge {ridge:g}, {inputs} inputs", kept)


def flap(setting: Setting) -> Iterator[Pruned]:
    """The variance of an input times the squared weights that read it, and a bias for the mean of what goes.

    Source:
        An et al., 2023, https://arxiv.org/abs/2312.11983: WIFV and IFV, with one threshold for standardised scores of
        all layers or uniform widths. Scores go by their rank until the cost is met.
    """
    metrics: dict[str, Callable[[Moments, torch.Tensor], torch.Tensor]] = {
        "wifv": lambda moments, weight: moments.variance * weight.square().sum(dim=0),
        "ifv": lambda moments, weight: moments.variance,
    }
    for metric, score in metrics.items():
        for units in UNITS:
            scores = column_scores(setting, units, score, standardised)
            for budget in setting.budgets:
                adaptive = ranked(scores, setting, budget, biased=True)
                yield with_biases(setting, adaptive, f"{metric}, {units}, adaptive")
                for heads, kept in uniform(scores, setting, budget, biased=True):
                    yield with_biases(setting, kept, f"{metric}, {heads} {units} a layer")


def column_scores(
    setting: Setting,
    units: str,
    score: Callable[[Moments, torch.Tensor], torch.Tensor],
    scaled: Callable[[torch.Tensor], torch.Tensor] = lambda values: values,
) -> Scores:
    """Scores of the inputs of output projections, which heads have the mean of."""
    weights = [module.weight.data.double() for module in projections(setting.model)]
    columns = [scaled(score(moments, weight)) for moments, weight in zip(setting.moments, weights, strict=True)]
    count = unit_count(setting, units)
    return Scores(
        torch.stack([values.view(count, -1).mean(dim=1) for values in columns[::2]]), torch.stack(columns[1::2])
    )


def unit_count(setting: Setting, units: str) -> int:
    config = setting.model.config
    return int(config.num_attention_heads if units == "heads" else config.num_key_value_heads)


def standardised(values: torch.Tensor) -> torch.Tensor:
    return (values - values.mean()) / values.std()


def with_biases(setting: Setting, kept: Kept, options: str) -> Pruned:
    """The network with biases that put back the mean of what the removed inputs contributed to an output."""
    modules = projections(setting.model), projections(network := cut(setting.model, kept))
    for dense, part, moments, stay in zip(*modules, setting.moments, input_masks(setting.model, kept), strict=True):
        part.bias = nn.Parameter(dense.weight.data @ (moments.mean * ~stay).to(dense.weight.dtype))
    return Pruned(network, setting.ratios(kept, biased=True), options)


def llm_pruner(setting: Setting) -> Iterator[Pruned]:
    """First-order Taylor: gradients of the calibration loss times weights, summed over what goes together.

    Source:
        Ma, Fang and Wang, LLM-Pruner, 2023, https://arxiv.org/abs/2305.11627: absolute values of the products by
        weight or by row, uniform widths in all layers but the first and last ones, or one threshold for all layers.
    """
    ends = {"": (), ", first and last layers whole": (0, -1)}
    gradients = weight_gradient_products(setting)
    for by in ("weight", "row"):
        for units in UNITS:
            scores = taylor_scores(setting, gradients, units, by)
            for budget in setting.budgets:
                for note, layers in ends.items():
                    fixed = protected(scores, layers)
                    yield setting.pruned(ranked(fixed, setting, budget), f"by {by}, {units}, global{note}")
                    for heads, kept in uniform(fixed, setting, budget):
                        yield setting.pruned(kept, f"by {by}, {heads} {units} a layer{note}")


def taylor_scores(setting: Setting, products: list[dict[str, torch.Tensor]], units: str, by: str) -> Scores:
    """Sums of products of weights and gradients over all that goes with a head or a neuron."""

    def over(values: torch.Tensor, dim: int) -> torch.Tensor:
        return values.abs().sum(dim=dim) if by == "weight" else values.sum(dim=dim).abs()

    def heads(layer: dict[str, torch.Tensor]) -> torch.Tensor:
        alone = (over(layer["q_proj"], 1) + over(layer["o_proj"], 0)).view(unit_count(setting, units), -1).sum(dim=1)
        if units == "heads":
            return alone
        return alone + (over(layer["k_proj"], 1) + over(layer["v_proj"], 1)).view(len(alone), -1).sum(dim=1)

    def neurons(layer: dict[str, torch.Tensor]) -> torch.Tensor:
        return over(layer["gate_proj"], 1) + over(layer["up_proj"], 1) + over(layer["down_proj"], 0)

    return Scores(
        torch.stack([heads(layer) for layer in products]), torch.stack([neurons(layer) for layer in products])
    )
