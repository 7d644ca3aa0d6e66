"""The fitness of language models and encoders, against arithmetic by hand and torch's own losses."""

from __future__ import annotations

import functools
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import DataError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import default_guide, embedding, kept_for, reported_names, with_interval
from autoprune.measure.language import language_model
from autoprune.measure.scorer import with_dense_outputs
from autoprune.measure.top_classes import LARGEST_WHOLE, TopClasses

WORDS = 7


class Bigrams(nn.Module):
    """The logits of the next token depend on the token alone."""

    def __init__(self, seed: int = 0, words: int = WORDS) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, words)
        with torch.no_grad():
            self.table.weight.normal_(generator=torch.Generator().manual_seed(seed))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> object:
        return SimpleNamespace(logits=self.table(ids), past_key_values=None)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def ids(count: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(WORDS, (count, length), generator=torch.Generator().manual_seed(seed))


def own_targets(*rows: torch.Tensor) -> list[Batch]:
    return [Batch((x,), x.clone()) for x in rows]


def test_perplexity_is_the_exponential_of_the_cross_entropy_of_the_tokens_after_the_first():
    network, x = Bigrams(), ids(5, 9)
    chances = network.table.weight.softmax(dim=1)
    nats = [-math.log(chances[a, b]) for row in x.tolist() for a, b in itertools.pairwise(row)]
    values = language_model(network, own_targets(x[:2], x[2:]), ("perplexity", "loss"))
    assert values["loss"] == pytest.approx(sum(nats) / 40, rel=1e-6)
    assert values["perplexity"] == pytest.approx(math.exp(sum(nats) / 40), rel=1e-6)


def test_padding_and_unequal_lengths_do_not_change_the_mean_over_tokens():
    network, short, long = Bigrams(), ids(1, 4, 1), ids(1, 9, 2)
    padded = functional.pad(short, (0, 5))
    target = torch.cat([functional.pad(short, (0, 5), value=-100), long])
    together = [Batch((torch.cat([padded, long]),), target)]
    assert language_model(network, together, ("loss",)) == language_model(network, own_targets(short, long), ("loss",))


def test_kl_is_that_of_torch_and_zero_for_the_dense_network_itself():
    dense, other, x = Bigrams(0), Bigrams(1), ids(3, 6)
    batches = with_dense_outputs(dense, own_targets(x), language_model)
    p, q = (network.table.weight[x[:, :-1]].log_softmax(dim=-1) for network in (dense, other))
    expected = (p.exp() * (p - q)).sum(dim=-1).mean()
    assert language_model(other, batches)["kl"] == pytest.approx(float(expected), rel=1e-5)
    assert language_model(dense, batches)["kl"] == 0


def test_the_angle_between_logits_is_a_share_of_a_half_turn_and_zero_for_the_dense_network_itself():
    dense, opposite, x = Bigrams(), Bigrams(), ids(3, 5)
    opposite.table.weight.neg_()
    opposite.table.weight[0] = dense.table.weight[0].flip(0) * dense.table.weight[0].sign()
    batches = with_dense_outputs(dense, own_targets(x), functools.partial(language_model, report=("angular",)))
    assert language_model(dense, batches, ("angular",)) == {"angular": 0}
    pairs = [(dense.table.weight[a], opposite.table.weight[a]) for a in x[:, :-1].flatten().tolist()]
    cosines = [float((u @ v) / (u.norm() * v.norm())) for u, v in pairs]
    expected = sum(math.acos(max(-1, cosine)) / math.pi for cosine in cosines) / len(cosines)
    assert language_model(opposite, batches, ("angular",))["angular"] == pytest.approx(expected, abs=1e-4)


def test_of_a_large_vocabulary_the_most_likely_tokens_are_kept_and_bound_the_kl():
    words = LARGEST_WHOLE + 1
    dense, other, x = Bigrams(0, words), Bigrams(1, words), ids(2, 3)
    batches = with_dense_outputs(dense, own_targets(x), language_model)
    assert isinstance(batches[0].dense, TopClasses)
    whole = language_model(other, [Batch((x,), x, dense(x).logits)])["kl"]
    assert 0 < language_model(other, batches)["kl"] < whole
    assert language_model(dense, batches)["kl"] == pytest.approx(0, abs=1e-5)


def test_a_network_in_bfloat16_is_measured_in_float32():
    network, x = Bigrams(), ids(4, 8)
    half = Bigrams().to(torch.bfloat16)
    expected = functional.cross_entropy(half.table.weight.float()[x[:, :-1]].flatten(0, 1), x[:, 1:].flatten())
    assert language_model(half, own_targets(x), ("loss",))["loss"] == pytest.approx(float(expected), rel=1e-6)
    assert language_model(half, own_targets(x), ("loss",)) != language_model(network, own_targets(x), ("loss",))


def test_the_interval_of_a_perplexity_comes_from_whole_sequences():
    network, x = Bigrams(), ids(40, 6)
    values = with_interval(language_model)(network, with_dense_outputs(network, own_targets(x)))
    assert values["perplexity_low"] < values["perplexity"] < values["perplexity_high"]
    same = with_interval(functools.partial(language_model, report=("perplexity",)))(network, own_targets(x[:1], x[:1]))
    assert same["perplexity_low"] == pytest.approx(same["perplexity"])
    assert same["perplexity_high"] == pytest.approx(same["perplexity"])


def test_about_nineteen_of_twenty_intervals_hold_the_true_perplexity():
    """Losses of 50 sequences are normal with mean 2 and deviation 0.3; of 200 intervals fewer than 175 would hold the
    mean by chance in one of 10,000 runs if 93 % hold it.
    """
    from autoprune.measure.language import _perplexity_interval

    drawn = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        losses = 2 + 0.3 * torch.randn(50, generator=drawn, dtype=torch.float64)
        ends = _perplexity_interval(torch.stack([torch.full_like(losses, 8), 8 * losses], dim=1))
        held += ends["perplexity_low"] < math.exp(2) < ends["perplexity_high"]
    assert 175 <= held <= 198


def test_the_guide_and_the_names_of_the_built_in_fitnesses():
    assert reported_names(language_model, "loss") == ("perplexity", "kl", "loss")
    assert reported_names(functools.partial(language_model, report=("loss",)), None) == ("loss",)
    assert (default_guide(language_model), default_guide(embedding)) == ("kl", None)
    assert with_interval(embedding) is embedding


def test_only_the_logits_of_the_dense_network_are_kept():
    output = Bigrams()(ids(2, 3))
    assert torch.equal(kept_for(language_model)(output), output.logits)


def test_wrong_calls_are_refused_with_a_sentence():
    network, x = Bigrams(), ids(2, 5)
    with pytest.raises(PluginError, match="can report perplexity, loss, kl, angular; got 'hits'"):
        language_model(network, own_targets(x), ("hits",))
    with pytest.raises(DataError, match="at least one batch"):
        language_model(network, [])
    with pytest.raises(DataError, match="needs labels"):
        language_model(network, [Batch((x,))], ("loss",))
    with pytest.raises(DataError, match="labels that are not -100, got none in 2 sequences"):
        language_model(network, [Batch((x,), torch.full_like(x, -100))], ("loss",))
    with pytest.raises(DataError, match=r"a label for each token, got logits of shape \(2, 5, 7\) .* \(2, 4\)"):
        language_model(network, [Batch((x,), x[:, 1:])], ("loss",))
    with pytest.raises(PluginError, match=r"vocabulary\) logits, got a tensor of shape \(2, 5\)"):
        language_model(nn.Identity(), [Batch((x.float(),), x)], ("loss",))


def test_an_embedding_is_the_mean_over_the_tokens_that_are_not_padding():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    turned = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    target = torch.tensor([[4, 5, -100]])
    batch = Batch((turned,), target, SimpleNamespace(last_hidden_state=tokens, pooler_output=None))
    values = embedding(nn.Identity(), [batch])
    assert values["cosine"] == pytest.approx(math.sqrt(0.5))  # (0.5, 0.5) and (1, 0)
    assert values["distance"] == pytest.approx(1 - math.sqrt(0.5))


def test_outputs_without_tokens_are_embeddings_already():
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    y = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    cosine = ((x * y).sum(1) / x.norm(dim=1) / y.norm(dim=1)).mean()
    assert embedding(nn.Identity(), [Batch((x,), None, y)])["cosine"] == pytest.approx(float(cosine), rel=1e-5)
    with pytest.raises(PluginError, match=r"embedding expects a network that returns \(b, tokens, width\)"):
        embedding(nn.Identity(), [Batch((x[0],), None, y[0])])
    with pytest.raises(DataError, match="embedding needs at least one batch"):
        embedding(nn.Identity(), [])
