"""Scores of candidates on a small trained-looking network."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch
from small_network import SPACE, A, B, Network

from autoprune.core.evaluation import merged
from autoprune.core.space import Candidate
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms import two_pass
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import averaging, classification
from autoprune.measure.scorer import Scorer, with_dense_outputs
from autoprune.measure.settings import ScorerSettings
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.structure.trace import trace


@pytest.fixture
def model():
    network = Network()
    recalibrate(network, batches(5))
    return network.train()


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(10, 2, 5, 5, generator=generator),) for _ in range(4)]


def make_scorer(model, fitness=classification, anchored=False):
    structure = trace(model, batches(0)[0])
    bank = make_bank(model, structure, SPACE.units, obs, batches(1))
    labelled = [Batch(inputs, torch.arange(10) % 3) for inputs in batches(2)]
    select = with_dense_outputs(model, labelled)
    scoring = ScorerSettings("anchored" if anchored else "reestimated")
    return Scorer(bank, SPACE, batches(1), select, fitness, scoring, objective="quality", worker="w3")


@pytest.fixture
def scorer(model):
    return make_scorer(model)


@pytest.mark.parametrize("anchored", [True, False])
def test_a_score_does_not_depend_on_what_was_scored_before(model, anchored):
    scorer = make_scorer(model, anchored=anchored)
    first, _, again = scorer.score(A), scorer.score(B), scorer.score(A)
    assert first.values == again.values == make_scorer(model, anchored=anchored).score(A).values
    assert first.values != scorer.score(B).values


def test_a_fitness_that_spoils_the_network_spoils_nothing_else(model):
    def destructive(network, batches):
        value = classification(network, batches)["kl"]
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.zero_()
        return value

    scorer = make_scorer(model, destructive)
    assert scorer.score(A).values == scorer.score(A).values == {"quality": make_scorer(model).score(A).values["kl"]}


def test_the_users_model_is_untouched(model, scorer):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for candidate in (A, B, SPACE.dense, SPACE.smallest):
        assert scorer.score(candidate).ok
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_the_dense_candidate_is_the_dense_network_with_its_own_statistics(model, scorer):
    network = scorer.network(SPACE.dense)
    assert all(torch.equal(t, network.state_dict()[name]) for name, t in model.state_dict().items())
    assert scorer.score(SPACE.dense).values["kl"] == pytest.approx(0, abs=1e-6)


def test_a_smaller_candidate_has_statistics_of_its_own(scorer):
    network = scorer.network(A)
    assembled = scorer.bank.build(scorer.bank.subnet({"a": 4, "b": 3}))
    assert not torch.equal(network.bn.running_mean, assembled.bn.running_mean)
    recalibrate(assembled, scorer.calibrate)
    assert torch.equal(network.bn.running_mean, assembled.bn.running_mean)
    assert (network.a.out_channels, network.b.out_channels, network.out.in_features) == (4, 3, 3)


@pytest.mark.parametrize(("fidelity", "seen"), [(1.0, 4), (0.75, 3), (0.5, 2), (0.26, 2), (0.25, 1), (1e-9, 1)])
def test_a_fidelity_is_a_prefix_of_the_batches_rounded_up(model, fidelity, seen):
    def count(network, batches):
        assert all(a is b for a, b in zip(batches, scorer.select, strict=False))
        return len(batches)

    scorer = make_scorer(model, count)
    assert scorer.score(Candidate(A.levels, fidelity)).values == {"quality": seen}


@pytest.mark.parametrize("fidelities", [(0.1, 0.3, 1.0), (0.25, 1.0), (1 / 3, 0.7, 1.0)])
@pytest.mark.parametrize("norms", ["batch", "anchored"])
def test_batches_end_where_a_search_has_announced_fidelities(model, fidelities, norms):
    scorer = make_scorer(model).with_scoring(fidelities=fidelities, batch_norms=norms)
    total = sum(batch.examples for batch in scorer.select)
    for fidelity in fidelities:
        assert scorer.score(Candidate(A.levels, fidelity)).examples == math.ceil(fidelity * total)


def test_parts_since_an_earlier_score_join_to_the_score_of_all(model):
    scorer = make_scorer(model).with_scoring(fidelities=(0.25, 0.5, 1.0))
    whole = scorer.score(A)
    first = scorer.score(Candidate(A.levels, 0.25))
    second = scorer.score(Candidate(A.levels, 1.0, since=0.25))
    both = merged(first, second)
    assert first.examples + second.examples == whole.examples == both.examples
    assert both.candidate == A
    assert both.values == pytest.approx(dict(whole.values))
    assert first.values != both.values


@pytest.mark.parametrize("norms", ["anchored", "reestimated"])
def test_statistics_are_estimated_once_for_all_parts_of_a_score(model, norms, monkeypatch):
    passes = []
    monkeypatch.setattr(two_pass, "recalibrate", lambda *given: (passes.append(given[0]), recalibrate(*given)))
    fresh, kept = (
        make_scorer(model).with_scoring(fidelities=(0.25, 0.5, 1.0), batch_norms=norms, reuse_gib=0) for _ in range(2)
    )
    other = Candidate((0, 1), 0.25)
    for candidate in (Candidate(A.levels, 0.25), other, Candidate(A.levels, 0.5, since=0.25)):
        last = kept.score(candidate)
    assert len(passes) == 2 + (norms == "anchored")  # two networks; anchors are those of the dense network
    assert last.values == fresh.score(Candidate(A.levels, 0.5, since=0.25)).values


def test_values_by_part_are_those_of_the_fitness_on_each(model):
    scorer = make_scorer(model).with_scoring(fidelities=(0.25, 0.5, 1.0), in_parts=True)
    first = scorer.score(Candidate(A.levels, 0.5))
    second = scorer.score(Candidate(A.levels, 1.0, since=0.5))
    network = scorer.network(A)
    wanted = [scorer.measure(network, scorer.stage.part(*ends))["kl"] for ends in ((0, 0.25), (0.25, 0.5), (0.5, 1))]
    assert merged(first, second).parts["kl"] == pytest.approx(wanted)
    assert merged(first, second).values["kl"] == pytest.approx(0.25 * wanted[0] + 0.25 * wanted[1] + 0.5 * wanted[2])


def test_what_follows_from_the_counts_alone_is_the_same_in_every_part(model):
    also = {"width": lambda subnet: float(subnet.counts["a"])}
    scorer = replace(make_scorer(model), also=also).with_scoring(fidelities=(0.25, 0.5, 1.0), in_parts=True)
    assert scorer.score(Candidate(A.levels, 0.5)).parts["width"] == (4.0, 4.0)


def test_a_fitness_that_is_no_mean_over_examples_says_so(model):
    assert make_scorer(model, lambda network, batches: 1.0).score(A).examples == 0
    marked = averaging(lambda network, batches: 1.0)
    assert make_scorer(model, functools.partial(marked)).score(A).examples > 0


def test_fitness_runs_in_eval_mode_without_gradients_and_modes_come_back(model):
    def look(network, batches):
        assert not any(module.training for module in network.modules())
        assert not torch.is_grad_enabled()
        return 1.0

    scorer = make_scorer(model, look)
    network = scorer.network(A)
    assert scorer.measure(network, scorer.select) == {"quality": 1.0}
    assert all(module.training for module in network.modules())


def test_an_evaluation_tells_who_took_how_long(scorer):
    evaluation = scorer.score(A)
    assert (evaluation.candidate, evaluation.worker, evaluation.status, evaluation.cause) == (A, "w3", "ok", "")
    assert evaluation.seconds > 0


def raise_memory_error(network, batches):
    raise MemoryError("too large")


@pytest.mark.parametrize(
    ("fitness", "cause"),
    [
        (raise_memory_error, "MemoryError: too large"),
        (lambda network, batches: float("nan"), "PluginError: expected a finite fitness, got quality = nan"),
        (lambda network, batches: None, "PluginError: expected the fitness to return a float"),
        (lambda network, batches: network(torch.zeros(1, 3, 5, 5)).sum(), "RuntimeError: Given groups=1"),
    ],
)
def test_what_goes_wrong_with_one_candidate_is_a_failed_evaluation_with_its_cause(model, fitness, cause):
    evaluation = make_scorer(model, fitness).score(A)
    assert (evaluation.status, evaluation.values) == ("failed", {})
    assert evaluation.cause.startswith(cause)
    assert evaluation.seconds > 0


@pytest.mark.parametrize(
    ("candidate", "cause"),
    [
        (Candidate((3, 0)), "SpaceError: expected 2 level indices"),
        (Candidate((1,)), "SpaceError: expected 2 level indices"),
        (Candidate((1, 1), float("nan")), "SpaceError: expected a fidelity above 0"),
    ],
)
def test_a_candidate_of_another_space_is_a_failed_evaluation_too(scorer, candidate, cause):
    evaluation = scorer.score(candidate)
    assert evaluation.status == "failed"
    assert evaluation.cause.startswith(cause)


def test_an_interrupt_is_not_taken_for_a_failure(model):
    def interrupt(network, batches):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_scorer(model, interrupt).score(A)
