"""Train mode without randomness: dropouts let everything pass, random operators give constants."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.prune.passes.train_mode import copy_in_train_mode


class Running(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x) if self.training else x


def ran(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    with copy_in_train_mode(Running(function)) as network:
        return network(x.clone())


@pytest.mark.parametrize(
    "dropout",
    [
        lambda x: F.dropout(x, 0.5),
        lambda x: F.dropout(x, 0.5, True),
        lambda x: F.dropout(x, p=0.5, training=True, inplace=True),
        lambda x: F.dropout1d(x, 0.5),
        lambda x: F.alpha_dropout(x, 0.5, training=True),
        lambda x: F.feature_alpha_dropout(x, 0.5, training=True),
        lambda x: torch.dropout(x, 0.5, True),
        lambda x: torch.native_dropout(x, 0.5, True)[0],
    ],
)
def test_functional_dropout_lets_everything_pass(dropout: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(ran(dropout, x), x)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (torch.rand_like, 0.5),
        (lambda x: torch.rand(x.shape), 0.5),
        (torch.randn_like, 0.0),
        (lambda x: torch.normal(x, 1.0), None),
        (lambda x: x.new_empty(x.shape).bernoulli_(0.3), 1.0),
        (lambda x: torch.bernoulli(torch.full_like(x, 0.3)), 1.0),
        (lambda x: x.new_empty(x.shape).uniform_(2, 4), 3.0),
        (lambda x: x.new_empty(x.shape).normal_(2, 4), 2.0),
        (lambda x: x.new_empty(x.shape).exponential_(), 0.5),
        (lambda x: torch.randint(2, 8, x.shape).float(), 5.0),
        (lambda x: torch.randint(8, x.shape).float(), 4.0),
        (lambda x: torch.poisson(x.abs()), None),
    ],
)
def test_random_operators_give_constants(
    function: Callable[[torch.Tensor], torch.Tensor], wanted: float | None
) -> None:
    x = torch.rand(2, 3)
    expected = x if wanted is None else torch.full_like(x, wanted)
    torch.testing.assert_close(ran(function, x), expected)


def test_random_orders_and_draws_are_in_order() -> None:
    assert ran(lambda x: torch.randperm(5), torch.zeros(1)).tolist() == [0, 1, 2, 3, 4]
    assert ran(lambda x: torch.multinomial(x, 2), torch.tensor([[0.0, 1.0, 2.0]])).tolist() == [[1, 2]]


def test_attention_drops_nothing() -> None:
    x = torch.randn(1, 2, 3, 4)
    wanted = F.scaled_dot_product_attention(x, x, x)
    torch.testing.assert_close(ran(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.9), x), wanted)
    torch.testing.assert_close(ran(lambda x: F.scaled_dot_product_attention(x, x, x, None, 0.9), x), wanted)


def test_modules_of_randomness_and_statistics_stay_in_eval_mode_and_come_back() -> None:
    class LayerDropPath(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rand(()) if self.training else x

    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), LayerDropPath(), nn.RReLU(), nn.Identity())
    with copy_in_train_mode(model) as network:
        assert [module.training for module in network] == [False, False, False, False, True]
        torch.testing.assert_close(network(torch.ones(1, 3)), model.eval()(torch.ones(1, 3)))
    assert all(module.training for module in network)
    assert model[0].num_batches_tracked == 0


def test_what_is_drawn_elsewhere_is_left_as_it_is() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    ran(torch.rand_like, torch.zeros(5))
    assert torch.equal(torch.rand(2), wanted)
