"""Names of measured values, costs and objectives that columns have already: refused before anything is searched."""

import pytest

from autoprune.core.evaluation import Evaluation, merged
from autoprune.core.objective import Objective
from autoprune.core.pick import Choice
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, RunFailed
from autoprune.measure.fitness import classification
from autoprune.run import search
from autoprune.run.records.columns import OWN, check_measured, check_named, clashes

TAKEN = [
    "macs",
    "params",
    "macs_ratio",
    "candidate",
    "levels",
    "kept",
    "fidelity",
    "status",
    "worker",
    "verify_error",
    "select_loss",
    "search_kl",
    "accuracy_low",
    "kl_high",
]


def reporting(**more):
    return lambda model, batches: classification(model, batches) | more


@pytest.mark.parametrize("name", TAKEN)
def test_a_fitness_with_a_name_that_is_taken_is_refused_before_the_search(job, tmp_path, name):
    with pytest.raises(ConfigError, match=f"expected the fitness to report names of its own, but '{name}' "):
        search(job("random", 4, fitness=reporting(**{name: 1.0})), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "is_named"),
    [("top5", True), ("_x", True), ("a b", False), ("", False), ("a<=b", False), ("top-5", False), ("5x", False)],
)
def test_names_of_costs_measurements_and_guides_are_names_that_a_bound_can_have(name, is_named):
    named = [Evaluation(Candidate((0,)), {name: 1.0})]
    choice = Choice(named, (Objective("macs", "min"),), {"macs": 1.0})
    if is_named:
        assert choice.pick(f"{name}<=2").index == 0
        check_measured([name], ["macs"])
        check_named([name], [name], [Objective(name, "min")], None)
        return
    with pytest.raises(ConfigError):
        choice.pick(f"{name}<=2")
    with pytest.raises(ConfigError, match="is no name of letters, digits and underscores"):
        check_measured([name], ["macs"])
    with pytest.raises(ConfigError, match="(?s)cost .* is no name .*objective .* is no name .*the guide .* is no name"):
        check_named(["macs", name], [name], [Objective("x" + name + " ", "min")], name + "-")


def test_a_fitness_with_the_name_of_the_jobs_own_cost_is_refused(job):
    with pytest.raises(ConfigError, match="'bytes' is the name of a cost"):
        search(job("random", 4, costs={"bytes": lambda kept: 1.0}, fitness=reporting(bytes=1.0)), None)


def test_names_that_only_look_alike_are_accepted(job):
    made = reporting(macs_measured=1.0, selected=2.0, low=3.0, accuracy_lower=4.0)
    assert search(job("uniform", 2, fitness=made), None).members[0]["accuracy_lower"] == 4.0


def test_a_name_that_only_some_networks_have_fails_those(job):
    def fitness(model, batches):
        small = sum(parameter.numel() for parameter in model.parameters()) < 3000
        return classification(model, batches) | ({"macs": 1.0} if small else {})

    told = search(job("uniform", 4, fitness=fitness), None).evaluations
    failed = [e for e in told if not e.ok]
    assert failed
    assert all("'macs' is the name of a cost" in e.cause for e in failed)
    assert all(e.values["macs"] > 1 for e in told)


@pytest.mark.parametrize("name", ["macs", "params", "nonzeros", "candidate", "params_ratio", "select_x"])
def test_a_cost_with_a_name_that_is_taken_is_refused(job, name):
    with pytest.raises(ConfigError, match=f"cost '{name}' "):
        search(job("random", 4, costs={name: lambda kept: 1.0}), None)


def test_two_costs_of_which_one_is_called_the_ratio_of_the_other_are_refused(job):
    costs = {"bytes": lambda kept: 1.0, "bytes_ratio": lambda kept: 1.0}
    with pytest.raises(ConfigError, match="cost 'bytes_ratio' is a column of the front's table"):
        search(job("random", 4, costs=costs), None)


def test_objectives_and_guides_with_names_that_are_taken_are_refused_together(job):
    objectives = (Objective("levels", "max"), Objective("macs", "min"), Objective("macs", "min"))
    with pytest.raises(ConfigError) as refused:
        search(job("random", 4, objectives=objectives, guide="params", fitness=reporting(levels=1.0)), None)
    assert refused.value.problems == [
        "objective 'levels' is a column of the front's table. Rename or remove it.",
        "objective 'macs' is given 2 times. Rename or remove it.",
        "the guide 'params' is the name of a cost. Rename or remove it.",
    ]


def test_a_fitness_that_reports_what_the_guide_measures_is_refused(job):
    with pytest.raises(RunFailed, match=r"expected the fitness to report other names than \['layer'\]"):
        search(job("uniform", 2, guide="layer", fitness=reporting(layer=1.0)), None)


def test_a_fitness_that_reports_a_name_twice_is_refused(job):
    with pytest.raises(RunFailed, match=r"expected the fitness to report each name once, got \['1', 1\]"):
        search(job("uniform", 2, fitness=lambda model, batches: {"1": 1.0, 1: 2.0}), None)


def test_every_column_of_a_front_is_known(job, tmp_path):
    result = search(job("uniform", 2), tmp_path / "run")
    for row in result.members:
        measured = ("accuracy", "kl")
        rest = {n for n in row if n not in ("macs", "params") and n not in measured and n not in OWN}
        assert len(clashes({*measured, *rest}, ("macs", "params"))) == len(rest)


def test_parts_with_other_names_fail_instead_of_ending_the_search():
    first = Evaluation(Candidate((0,), 0.5), {"kl": 1.0, "macs": 3}, examples=4)
    second = Evaluation(Candidate((0,), 1.0, 0.5), {"kl": 1.0, "new": 2.0}, examples=4)
    whole = merged(first, second)
    assert whole.status == "failed"
    assert "expected the same values of all examples, got ['kl', 'new']" in whole.cause
