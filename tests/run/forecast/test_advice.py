"""What follows from a forecast: the size of the front, and what would make a long search shorter."""

import functools
from dataclasses import replace

import pytest

from autoprune.measure.form import Form
from autoprune.run.forecast import advice, forecaster
from autoprune.run.forecast.advice import chosen_front_size, search_advice
from autoprune.run.forecast.forecaster import make_forecast
from autoprune.run.session.job import Executor, NamedSearcher, silent
from autoprune.run.session.session import open_session
from autoprune.searchers import SEARCHERS

HOURS = 3600.0


def named(job, name, **options):
    return replace(job(evaluations=300), searcher=NamedSearcher(SEARCHERS[name], options))


@pytest.mark.parametrize(
    ("building", "search", "size"), [(301, 300, 12), (301, 302, 32), (299, 1, 32), (0, 0, 32), (9000, 0, 12)]
)
def test_a_front_that_takes_longer_than_five_minutes_and_than_the_search_is_smaller(building, search, size):
    assert chosen_front_size(building, search) == size


def test_a_search_of_hours_says_what_to_change(job):
    said = search_advice(named(job, "evolution"), 9.6 * HOURS, 4.2 * HOURS)
    assert said == (
        "evaluations: scoring 300 networks takes 9.6 h. It takes less with searcher: {name: screening, source: "
        "evolution} (about 3.3 times fewer examples for as good a front, see docs/results.md), fewer selection "
        "examples or workers (executor: processes or ray). In bfloat16, which is taken if it ranks networks as float32 "
        "does, it takes 4.2 h."
    )


@pytest.mark.parametrize(
    ("change", "low", "words"),
    [
        ({"tune": "off"}, 4.2 * HOURS, "selection examples, workers (executor: processes or ray) or bfloat16 (tune: "),
        ({"tune": "off"}, 9 * HOURS, "with fewer selection examples or workers (executor: processes or ray)."),
        ({"executor": Executor("ray")}, None, "with fewer selection examples or more workers."),
    ],
)
def test_a_way_is_named_only_where_it_helps(job, change, low, words):
    assert words in search_advice(replace(named(job, "genetic"), **change), 9.6 * HOURS, low)


@pytest.mark.parametrize("given", [("screening", {}), ("racing", {}), ("optuna", {"pruner": "HyperbandPruner"})])
def test_searches_on_parts_and_short_searches_need_no_advice(job, given):
    name, options = given
    assert search_advice(named(job, name, **options), 9.6 * HOURS, None) == ""
    assert search_advice(named(job, "auto"), HOURS, None) == ""
    assert "screening" in search_advice(named(job, "auto"), 2 * HOURS, None)


def test_the_forecast_of_a_long_search_ends_with_the_advice(job, monkeypatch):
    monkeypatch.setattr(advice, "LONG_SEARCH", 0.0)
    monkeypatch.setattr(forecaster, "LONG_SEARCH", 0.0)
    given = replace(named(job, "auto"), rules=job().rules)
    assert forecast(given).text().splitlines()[-1].startswith("evaluations: scoring 300 networks takes ")
    assert "In bfloat16" not in forecast(replace(given, tune=Form(dtype="bfloat16"))).notes[0]


def test_scores_in_a_given_precision_are_forecast_in_it(job, monkeypatch):
    slow = functools.partial(lambda seconds, call, inputs, expected: seconds, 1.0)
    monkeypatch.setattr(forecaster, "example_seconds", slow)
    plain, low = (forecast(job(evaluations=300, tune=tune)) for tune in ("off", Form(dtype="bfloat16")))
    assert seconds(low) > 10 * seconds(plain)


def forecast(job):
    return make_forecast(open_session(job, silent), 0.0)


def seconds(found):
    return next(stage.seconds for stage in found.stages if stage.name == "evaluations")
