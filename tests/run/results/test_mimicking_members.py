"""Members of a front that mimic the dense network after their fit."""

from __future__ import annotations

import json
import logging

import pytest

from autoprune.run.drive import search
from autoprune.run.results import deployed as module
from autoprune.run.results.deployed import deployed, fitted
from autoprune.run.session.session import open_session
from autoprune.train.recovery import mimicking
from autoprune.train.recovery.mimicking import Mimicking


def quiet(progress):
    pass


@pytest.fixture
def few_steps(monkeypatch):
    of = Mimicking.of
    monkeypatch.setattr(Mimicking, "of", staticmethod(lambda inputs: of(inputs, steps=20)))


def test_the_best_of_the_fitted_the_mimicking_and_the_assembled_network_is_deployed(job, few_steps):
    session = open_session(job(compensation="mimic"), quiet)
    subnet = session.scorer.subnet(session.space.smallest)
    own = fitted(session, session.reference, subnet)
    mimicked = session.mimicking.mimicked(own.network, session.model, subnet.indices, subnet.sparse)
    rivals = [session.selected(one) for one in (own.network, session.scorer.build(subnet), mimicked)]
    found = session.selected(deployed(session, subnet).network)
    assert found["accuracy"] == max(values["accuracy"] for values in rivals)
    assert len({values["kl"] for values in rivals}) == 3


@pytest.mark.slow
def test_a_front_says_which_members_mimicked(job, few_steps, tmp_path):
    search(job("uniform", 4, compensation="mimic"), tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "front.json").read_text())["rows"]
    assert {row["fit"].get("mimic_steps", 0) for row in rows if row.get("fit")} <= {0, 20}


def test_a_network_that_cannot_mimic_is_fitted_and_the_log_says_so(job, few_steps, monkeypatch, caplog):
    def refused(*args):
        raise module.PluginError("features of other shapes")

    monkeypatch.setattr(mimicking.Mimicking, "mimicked", refused)
    session = open_session(job(compensation="mimic"), quiet)
    with caplog.at_level(logging.WARNING):
        found = deployed(session, session.scorer.subnet(session.space.smallest))
    assert found.fit is None or not found.fit.mimic_steps
    assert "is fitted, but does not mimic the dense network: features of other shapes" in caplog.text
