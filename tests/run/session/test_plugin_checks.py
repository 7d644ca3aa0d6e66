"""Plug-ins and arguments that break their contracts: a sentence that helps, before the search where that can be."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autoprune.api import search as search_in_python
from autoprune.core.evaluation import Evaluation
from autoprune.core.levels import LevelRule
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import AutopruneError, ConfigError, DataError, PluginError, RunFailed, SpaceError
from autoprune.measure.batch import Batch, gathered, rebatched
from autoprune.measure.fitness import classification, reconstruction
from autoprune.run import search
from autoprune.run.session.plugin_checks import expect_searcher, made_searcher, proposals_of, tell
from autoprune.testing import synthetic_problem

RULES = (LevelRule("*", (0.25, 0.5, 0.75)),)


def asking(answer):
    """A searcher that always proposes the same."""

    class Asking:
        def ask(self, n):
            return answer

        def tell(self, evaluations):
            pass

    return Asking()


SPACE = SearchSpace(("a", "b"), ((8, 4), (6, 3)))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (None, "expected ask.2. to return a list of candidates, got a NoneType"),
        (Candidate((0, 1)), "got a Candidate"),
        ((c for c in [Candidate((0, 1))]), "got a generator"),
        (np.zeros((2, 2)), "got a ndarray"),
        ([(0, 1)], "expected ask.2. to return autoprune.Candidate objects, got a tuple among them"),
        ([[0, 1]], "got a list among them"),
        ([{"a": 4}], "got a dict among them"),
        ([Candidate([0, 1])], "expected 2 level indices.* Give them as a tuple of plain integers"),
        ([Candidate((0,))], "expected 2 level indices"),
        ([Candidate((0, 2))], r"each from 0 to \[1, 1\]"),
        ([Candidate((0, -1))], "each from 0 to"),
        ([Candidate((0.0, 1.0))], "plain integers"),
        ([Candidate((np.int64(0), np.int64(1)))], "plain integers"),
        ([Candidate((0, 1), math.nan)], "expected a fidelity above 0"),
        ([Candidate((0, 1), 1.0, 0.5)], "`since` the searcher leaves at 0"),
        ([Candidate((0, 1))] * 3, "expected at most 2 candidates"),
    ],
)
def test_what_a_searcher_may_not_propose_is_told(asked, message):
    with pytest.raises((PluginError, SpaceError), match=message):
        proposals_of(asking(asked), 2, SPACE)


class OnlyAsks:
    def __init__(self, problem, seed):
        pass

    def ask(self, n):
        return []


@dataclass
class Announcing:
    fidelities: tuple

    def ask(self, n):
        return []

    def tell(self, evaluations):
        pass


def test_a_searcher_that_cannot_be_asked_or_told_is_refused_before_the_search(job, tmp_path):
    with pytest.raises(PluginError, match="got a OnlyAsks, which has no tell"):
        search(replace(job(), searcher=OnlyAsks), tmp_path / "run")
    with pytest.raises(PluginError, match="got the class OnlyAsks, which is not made yet"):
        search(replace(job(), searcher=lambda problem, seed: OnlyAsks), tmp_path / "run")
    with pytest.raises(PluginError, match="got a NoneType, which has no ask and no tell"):
        expect_searcher(None)
    for fidelities in [(0.5,), (1.0, 0.5), (0.0, 1.0), ("a", 1.0), (0.5, 2.0), (math.nan, 1.0)]:
        with pytest.raises(PluginError, match="expected the searcher's fidelities to rise to 1"):
            expect_searcher(Announcing(fidelities))
    assert list(tmp_path.iterdir()) == []


def total(kept):
    return float(sum(kept.values()))


calls = []


def drifting(kept):
    calls.append(1)
    return total(kept) + len(calls)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda kept: -total(kept), "to be a finite number of 0 or more, got -"),
        (lambda kept: math.nan, "finite number of 0 or more, got nan"),
        (lambda kept: math.inf, "finite number of 0 or more, got inf"),
        (lambda kept: "12", "finite number of 0 or more, got '12'"),
        (lambda kept: None, r"raised TypeError"),
        (lambda kept: 1 / 0, "of the kept counts .* raised ZeroDivisionError"),
        (lambda kept: kept["no such unit"], "raised KeyError"),
        (lambda kept: 1e6 / total(kept), "least at the smallest network, .* at the dense network"),
        (lambda kept: abs(total(kept) - 20), "least at the smallest network"),
        (lambda kept: 0.0, "of the dense network to be above 0"),
        (drifting, "the same in every call"),
    ],
)
def test_a_cost_that_breaks_its_contract_is_told_before_the_search(job, tmp_path, cost, message):
    with pytest.raises(PluginError, match=message):
        search(job("uniform", 4, costs={"joules": cost}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_cost_that_falls_with_the_counts_is_used_as_it_is(job):
    result = search(job("uniform", 4, costs={"joules": total}), None)
    others = {row["joules"] - sum(row.counts.values()) for row in result.members}  # units that are not searched
    assert len(result.members) > 1
    assert len(others) == 1


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (DataLoader(TensorDataset(torch.zeros(4, 2))), "Data.from_loaders"),
        (torch.zeros(4, 2), "Data.from_arrays"),
        (np.zeros((4, 2)), "Data.from_arrays"),
        ((torch.zeros(4, 2), torch.zeros(4)), "Data.from_arrays"),
        ([torch.zeros(4, 2)], "Data.from_arrays"),
        ({"x": torch.zeros(4, 2)}, "Data.from_arrays"),
        ("cifar10", "Data.from_loaders"),
        (None, "Data.from_arrays"),
    ],
)
def test_what_is_no_data_is_told_with_how_to_make_it(model, job, data, advice):
    with pytest.raises(DataError, match=rf"data: expected an autoprune.data.Data of three disjoint sets.*{advice}"):
        search_in_python(model, data)
    with pytest.raises(DataError, match=advice):
        search(job(data=lambda: data), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": nn.Linear}, "model: expected a torch.nn.Module, got the class Linear"),
        ({"model": lambda x: x}, "model: expected a torch.nn.Module, got a function"),
        ({"objectives": "accuracy"}, r"objectives: expected a sequence such as \('accuracy', 'macs'\)"),
        ({"objectives": ()}, "objectives: expected a sequence"),
        ({"objectives": ("acuracy", "macs")}, "did you mean 'accuracy'"),
        ({"objectives": (("accuracy", "max"), "macs")}, "expected names or Objectives, got a tuple among them"),
        ({"rules": RULES[0]}, "rules: expected a sequence of LevelRules, .* got a LevelRule. Put it in a list"),
        ({"rules": ["*"]}, "rules: expected LevelRules, .* got a str among them"),
        ({"searcher": "evolutoin"}, "searcher: expected one of .*did you mean 'evolution'"),
        ({"searcher": asking([])}, "expected a function of .problem, seed. that makes a searcher, got a searcher"),
        ({"searcher": 3}, "searcher: expected a name or a function"),
        ({"options": [1]}, "options: expected a mapping"),
        ({"fitness": "classification"}, "fitness: expected a function of .model, batches., got 'classification'"),
        ({"costs": [total]}, "costs: expected functions by name"),
        ({"costs": {"joules": 3}}, "costs: expected a function of kept counts for 'joules'"),
        ({"executor": "proceses"}, "did you mean 'processes'"),
        ({"executor": 2}, "executor: expected a name or an Executor"),
        ({"evaluations": 0}, "evaluations: expected a whole number"),
        ({"evaluations": "300"}, "evaluations: expected a whole number"),
        ({"seed": -1}, "seed: expected"),
        ({"compensation": "through"}, "compensation: expected one of"),
        ({"criterion": "l11"}, "criterion: expected one of"),
        ({"guide": "lk"}, "guide: expected one of"),
        ({"device": "gpu"}, "run.device: expected a device"),
        ({"expected": {"acc": 0.9}}, "expected.acc: expected one of"),
    ],
)
def test_a_wrong_argument_of_search_in_python_is_a_sentence(model, data, changes, message):
    with pytest.raises(ConfigError, match=message):
        search_in_python(**{"model": model, "data": data, "rules": RULES, **changes})


def test_the_mistakes_of_one_call_are_told_together(model, data):
    with pytest.raises(ConfigError) as told:
        search_in_python(model, data, objectives="accuracy", fitness=None, executor=2)
    assert len(told.value.problems) == 3


@pytest.mark.parametrize(
    ("fitness", "message"),
    [
        (lambda model, batches: None, "expected the fitness to return a float or a dict of floats"),
        (lambda model, batches: "0.9", "expected the fitness to return a float"),
        (lambda model, batches: {}, "got an empty dict"),
        (lambda model, batches: torch.zeros(3), "expected the fitness to return a float"),
        (lambda model, batches: {"accuracy": math.nan}, "expected a finite fitness, got accuracy = nan"),
        (lambda model: 0.5, "TypeError"),
    ],
)
def test_a_fitness_that_breaks_its_contract_is_told_before_statistics_are_made(job, fitness, message):
    phases = []
    with pytest.raises((RunFailed, AutopruneError), match=message):
        search(job(fitness=fitness, guide=None), None, lambda step: phases.append(step.phase))
    assert "statistics" not in phases


# outputs that are no plain tensor


class Wrapped(nn.Module):
    """A classifier that returns its logits inside something."""

    def __init__(self, wrap):
        super().__init__()
        self.body, self.head, self.wrap = nn.Linear(6, 8), nn.Linear(8, 3), wrap

    def forward(self, x):
        hidden = self.body(x).relu()
        return self.wrap(self.head(hidden), hidden)


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


WRAPS = {
    "dict": lambda logits, hidden: {"logits": logits, "hidden": hidden},
    "one in a dict": lambda logits, hidden: {"out": logits},
    "one in a tuple": lambda logits, hidden: (logits,),
    "with nothing": lambda logits, hidden: (logits, None),
    "object": lambda logits, hidden: Output(logits, hidden),
}


def batches_for(model, count=3):
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        x = torch.randn(5, 6, generator=generator)
        found.append(Batch((x,), torch.randint(0, 3, (5,), generator=generator), model(x)))
    return found


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_logits_are_found_where_only_one_tensor_can_be_meant(wrap):
    torch.manual_seed(0)
    model = Wrapped(wrap).eval()
    plain = Wrapped(lambda logits, hidden: logits).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert classification(model, batches_for(model)) == classification(plain, batches_for(plain))


def test_reconstruction_compares_the_only_tensor_of_an_output():
    model = Wrapped(WRAPS["one in a tuple"]).eval()
    with torch.no_grad():
        assert reconstruction(model, batches_for(model)) == {"mse": 0.0}


@pytest.mark.parametrize(
    ("wrap", "got"),
    [
        (lambda logits, hidden: (logits, hidden), r"a tuple of a tensor of shape \(5, 3\), a tensor of shape \(5, 8\)"),
        (lambda logits, hidden: {"a": logits, "b": hidden}, "a dict of a, b"),
        (lambda logits, hidden: hidden[:, :, None], r"a tensor of shape \(5, 8, 1\)"),
        (lambda logits, hidden: [], "a list"),
    ],
)
def test_an_output_in_which_the_logits_are_not_plain_is_described(wrap, got):
    model = Wrapped(wrap).eval()
    with torch.no_grad(), pytest.raises(PluginError, match=rf"\(b, classes\) logits, got {got}.*function of your own"):
        classification(model, batches_for(model))


@pytest.mark.parametrize("name", ["dict", "one in a tuple", "with nothing"])
def test_batches_with_any_output_of_the_dense_network_can_be_cut_anew(name):
    model = Wrapped(WRAPS[name]).eval()
    with torch.no_grad():
        batches = batches_for(model)
        whole = model(torch.cat([batch.inputs[0] for batch in batches]))
        cut = gathered(rebatched(batches, 4)).dense
    for expected, got in zip(torch.utils._pytree.tree_leaves(whole), torch.utils._pytree.tree_leaves(cut), strict=True):
        assert expected is got is None or torch.allclose(expected, got, atol=1e-6)


class Raising:
    """A searcher that raises in the method of that name."""

    def __init__(self, problem, where):
        self.dense, self.where = problem.space.dense, where
        self.at("making")

    def at(self, place):
        if place == self.where:
            raise ValueError("no idea")

    def ask(self, n):
        self.at("ask")
        return [self.dense]

    def tell(self, evaluations):
        self.at("tell")


@pytest.mark.parametrize("where", ["making", "ask", "tell"])
def test_what_a_searcher_raises_is_a_sentence_with_its_place(where):
    problem = synthetic_problem(units=2).problem

    def step():
        searcher = made_searcher(Raising, problem, where)
        tell(searcher, Evaluation(*proposals_of(searcher, 1, problem.space)))

    with pytest.raises(PluginError, match=rf"{where}.* raised ValueError: no idea in at .*checks.py:\d"):
        step()
