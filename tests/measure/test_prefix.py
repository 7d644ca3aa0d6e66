"""What is reused changes no score, on networks that are awkward to cut."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.core.levels import LevelRule
from autoprune.core.space import Candidate, SearchSpace
from autoprune.measure import stage
from autoprune.measure.batch import Batch
from autoprune.measure.calls import record_calls
from autoprune.measure.fitness import classification
from autoprune.measure.scorer import Scorer, with_dense_outputs
from autoprune.measure.settings import GIB, ScorerSettings
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.bank.weight_units import sparse_weights
from autoprune.prune.bank.weights import make_weight_bank
from autoprune.prune.criteria import obs
from autoprune.prune.find import find_structure


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.n, self.b = (
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x):
        return F.relu(x + self.b(F.relu(self.n(self.a(x)))))


class Residual(nn.Module):
    """Blocks one after the other."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two, self.three = nn.Conv2d(2, 4, 3), Block(4), Block(4), Block(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.three(self.two(self.one(self.stem(x)))).mean((2, 3)))


class Skips(Residual):
    """The stem is read again at the end."""

    def forward(self, x):
        stem = self.stem(x)
        return self.head((self.three(self.two(self.one(stem))) * stem).mean((2, 3)))


class InPlace(Residual):
    """What a module returned is changed after it."""

    def forward(self, x):
        x = self.stem(x)
        x = self.one(x)
        x *= 2
        y = self.two(x).relu_()
        y += x
        return self.head(self.three(y).mean((2, 3)))


class Looped(Residual):
    """A module runs twice, the second time after everything else."""

    def forward(self, x):
        return self.head(self.one(self.three(self.two(self.one(self.stem(x))))).mean((2, 3)))


class Kept(Residual):
    """A result reaches the end by an attribute."""

    def forward(self, x):
        self.memory = self.one(self.stem(x))
        return self.head((self.three(self.two(self.memory)) + self.memory).mean((2, 3)))


class Functional(Residual):
    """A submodule's weight is read by the model's own code, long before the module runs."""

    def forward(self, x):
        x = self.stem(x)
        early = F.conv2d(x, self.three.a.weight, padding=1).mean()
        return self.head((self.three(self.two(self.one(x))) + early).mean((2, 3)))


class Branching(Residual):
    """What runs depends on values."""

    def forward(self, x):
        x = self.one(self.stem(x))
        if float(x.detach().mean()) > -1e9:
            x = self.two(x)
        return self.head(self.three(x).mean((2, 3)))


NETWORKS = (Residual, Skips, InPlace, Looped, Kept, Functional, Branching)


def inputs(seed, count=3):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(6, 2, 8, 8, generator=generator),) for _ in range(count)]


@functools.cache
def analysed(kind):
    """A network with its space and bank, made once; scores leave them as they are."""
    model = kind()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2)
    structure = find_structure(model.eval(), inputs(0)[0])
    units = [unit for unit in structure.units if unit.width > 1]
    space = SearchSpace(tuple(u.name for u in units), tuple((u.width, u.width // 2) for u in units))
    return model, space, make_bank(model, structure, space.units, obs, inputs(1))


def scorer_of(kind, **scoring):
    model, space, bank = analysed(kind)
    select = with_dense_outputs(model, [Batch(x, torch.arange(6) % 3) for x in inputs(2)])
    return Scorer(bank, space, inputs(1), select, classification, ScorerSettings(**scoring))


def scorer_with_zeros(kind, **scoring):
    """As `scorer_of`, of a space with every other weight beside the channels."""
    model, scorer = analysed(kind)[0], scorer_of(kind, **scoring)
    structure, rule = scorer.bank.structure, LevelRule("*", (0.5,), "weights")
    sparse = dict(list(sparse_weights(model, structure, [rule]).items())[::2])
    bank = scorer.bank.with_weights(make_weight_bank(model, structure, sparse, "obs", inputs(1)))
    widths = [(weight.width, weight.width // 2) for weight in sparse.values()]
    space = SearchSpace((*scorer.space.units, *sparse), (*scorer.space.levels, *widths))
    return replace(scorer, space=space, bank=bank)


def probes(space):
    singles = [tuple(int(i == unit) for i in range(len(space.units))) for unit in range(len(space.units))]
    return [Candidate(levels) for levels in [*singles, *map(tuple, [[1] * len(space.units)])]]


LONGER = ("reestimated", "eagleeye")  # batch norm forms that take several passes


def values(scorer, candidate):
    evaluation = scorer.score(candidate)
    assert evaluation.ok, evaluation.cause
    return evaluation.values


@pytest.mark.parametrize("norms", ["anchored", "batch", *(pytest.param(n, marks=pytest.mark.slow) for n in LONGER)])
@pytest.mark.parametrize("kind", NETWORKS)
def test_scores_are_the_same_to_the_last_bit_with_and_without_reuse(kind, norms):
    reusing = scorer_of(kind, batch_norms=norms)
    plain = reusing.with_scoring(reuse_gib=0)
    expected = {candidate: values(plain, candidate) for candidate in probes(reusing.space)}
    for _ in range(2):  # the first time outputs are kept, the second they are used
        assert {candidate: values(reusing, candidate) for candidate in expected} == expected


@pytest.mark.parametrize("norms", ["anchored", "batch"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_scores_of_networks_with_zeros_are_the_same_with_and_without_reuse(kind, norms):
    reusing = scorer_with_zeros(kind, batch_norms=norms)
    plain = reusing.with_scoring(reuse_gib=0)
    expected = {candidate: values(plain, candidate) for candidate in probes(reusing.space)}
    for _ in range(2):
        assert {candidate: values(reusing, candidate) for candidate in expected} == expected


def test_a_candidate_that_changes_weights_alone_is_not_taken_for_the_dense_network():
    scorer = scorer_with_zeros(Residual)
    assert values(scorer, scorer.space.dense)["kl"] == 0
    for candidate in probes(scorer.space):
        kl = scorer.measure(scorer.network(candidate), scorer.select)["kl"]
        assert values(scorer, candidate)["kl"] == pytest.approx(kl, rel=1e-3)
        assert kl > 0


@pytest.fixture
def convolutions(monkeypatch):
    """The convolutions that ran so far."""
    ran = []
    forward = nn.Conv2d._conv_forward
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda self, *args: ran.append(self) or forward(self, *args))
    return ran


def test_convolutions_before_the_cut_run_the_first_time_only(convolutions):
    scorer = scorer_of(Residual)
    last = Candidate(tuple(int(name.startswith("three")) for name in scorer.space.units))
    values(scorer, scorer.space.smallest)  # sets everything up
    batches = len(scorer.calibrate) + len(scorer.select)
    convolutions.clear()
    values(scorer, last)
    assert len(convolutions) >= 7 * batches
    convolutions.clear()
    values(scorer, last)
    assert len(convolutions) == 2 * batches  # those of the last block


def test_without_room_nothing_is_kept_and_scores_stay_the_same():
    scorer = scorer_of(Residual)
    tight = scorer.with_scoring(reuse_gib=100 / GIB)
    for candidate in probes(scorer.space) * 2:
        assert values(tight, candidate) == values(scorer, candidate)
    assert tight.stage.kept_bytes <= 100 < scorer.stage.kept_bytes


def test_what_is_kept_takes_at_most_a_quarter_of_what_a_device_has_free(monkeypatch):
    scorer = scorer_of(Residual)
    candidate = probes(scorer.space)[-1]
    values(scorer, candidate)
    free = 4 * scorer.stage.kept_bytes
    for there, kept in ((free, scorer.stage.kept_bytes), (free - 4, 0)):
        monkeypatch.setattr(stage, "free_bytes", lambda device, there=there: there)
        other = scorer.with_scoring()
        values(other, candidate)
        assert other.stage.kept_bytes == kept


def test_the_earliest_cut_goes_where_there_is_no_room_for_all():
    scorer = scorer_of(Residual)
    for candidate in probes(scorer.space):
        values(scorer, candidate)
    tight = scorer.with_scoring(reuse_gib=scorer.stage.kept_bytes // 2 / GIB)
    for candidate in probes(scorer.space) * 2:
        assert values(tight, candidate) == values(scorer, candidate)
    kept, all_ = set(tight.stage._prefixes._kept), set(scorer.stage._prefixes._kept)
    assert kept
    assert kept < all_
    assert max(all_ - kept) < min(kept)


def test_a_lower_fidelity_reuses_what_is_known_and_is_not_spoilt_by_it():
    scorer = scorer_of(Residual)
    plain = scorer.with_scoring(reuse_gib=0)
    levels = probes(scorer.space)[-2].levels
    for fidelity in (0.3, 1.0, 0.6):
        candidate = Candidate(levels, fidelity)
        assert values(scorer, candidate) == values(plain, candidate)


def test_a_fitness_that_changes_its_inputs_gets_what_it_asks_for():
    def noisy(model, batches):
        clean = classification(model, batches)["kl"]
        flipped = classification(model, [b._replace(inputs=(b.inputs[0].flip(3),)) for b in batches])["kl"]
        return {"kl": clean, "flipped": flipped}

    scorer = replace(scorer_of(Residual), fitness=noisy)
    plain = scorer.with_scoring(reuse_gib=0)
    for candidate in probes(scorer.space) * 2:
        assert values(scorer, candidate) == values(plain, candidate)


def test_a_fitness_that_writes_to_what_it_gets_spoils_nothing():
    def writing(model, batches):
        with model.two.register_forward_hook(lambda module, args, output: output.mul_(1.5)):
            return classification(model, batches)["kl"]

    scorer = replace(scorer_of(Residual), fitness=writing)
    plain = scorer.with_scoring(reuse_gib=0)
    for candidate in probes(scorer.space) * 3:
        assert values(scorer, candidate) == values(plain, candidate)


def test_calls_are_those_of_a_forward_by_hand():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1)))
    calls = record_calls(model.eval(), (torch.randn(3, 2),))
    assert calls.started == {"": 0, "0": 1, "1": 3, "1.0": 4, "1.1": 6}
    assert calls.ended == {"0": 2, "1.0": 5, "1.1": 7, "1": 8, "": 9}
    assert calls.read == {"0.weight": 2, "0.bias": 2, "1.1.weight": 7, "1.1.bias": 7}
    assert calls.complete(calls.first_touched(["1.1.weight"], [])) == ["0", "1.0"]
    assert calls.complete(calls.first_touched([], ["1.1"])) == ["0"]  # the module around it may read its numbers
    assert calls.complete(calls.first_touched(["0.weight"], [])) == []


def test_the_moment_before_modules_that_run_on_both_sides_by_hand():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.b(self.a(self.b(self.a(x))))

    calls = record_calls(Again().eval(), (torch.randn(3, 2),))
    assert (calls.started["a"], calls.ended["a"], calls.started["b"], calls.ended["b"]) == (1, 6, 3, 8)
    assert [calls.before_crossing(moment, ["b"]) for moment in (2, 3, 4, 8, 9)] == [2, 3, 3, 3, 9]
    assert calls.before_crossing(5, ["a", "b"]) == calls.before_crossing(7, ["b", "a"]) == 1
