"""Tokens and passwords: in nothing that a run writes, and found again when it is resumed."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
import torch
import yaml

from autoprune.config import load, load_run
from autoprune.errors import ConfigError
from autoprune.measure.fitness import classification
from autoprune.run import export_study, resume, search
from autoprune.run import write_report as report
from autoprune.run.fingerprint.secrets import is_secret, redacted, restored, scrubbed, secrets_in, withheld, without
from autoprune.run.records.events import Events
from autoprune.run.records.folder import write_yaml
from autoprune.run.session.job import Executor

TOKEN = "hf_AbCdEfGhIjKlMnOp"

SECRETS = [
    ("HF_TOKEN", "abc"),
    ("hfToken", "abc"),
    ("api_key", "abc"),
    ("apiKey", "abc"),
    ("AWS_SECRET_ACCESS_KEY", "a/b+c"),
    ("DB_PASS", "abc"),
    ("db-password", "abc"),
    ("client_secret", "abc"),
    ("authorization", "Basic abc"),
    ("storage", "postgresql://me:hunter2@db:5432/x"),
    ("storage", "mysql+pymysql://me:hunter2@db/x"),
    ("address", "me:hunter2@head:10001"),
    ("address", "ray://token@head:10001"),
    ("url", "https://host/path?user=a&token=hunter2"),
    ("url", "https://host/path?X-Amz-Signature=hunter2"),
    ("header", "Authorization: Bearer hunter2hunter2"),
    ("anything", TOKEN),
    ("anything", "ghp_abcdefghijklmnop"),
    ("anything", "sk-abcdefghijklmnop1234"),
    ("storage", "postgresql://me:hunter2/with@signs@db/x"),
    ("redis", "redis://:hunter2@db:6379"),
    ("anything", "eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2ln"),
]
PLAIN = [
    ("pad_token", "<pad>"),
    ("eos_token", "</s>"),
    ("max_tokens", 100),
    ("tokenizer", "gpt2"),
    ("token_length", 3),
    ("monkey", "banana"),
    ("keyword", "x"),
    ("storage", "sqlite:///study.db"),
    ("address", "ray://head:10001"),
    ("address", "10.0.0.5:6379"),
    ("repository", "git+ssh://git@host/path"),
    ("call", "my_package.models:net"),
    ("call", "/home/me/plug.py:net"),
    ("mail", "me@example.org"),
    ("path", "/data/a@b/c:d"),
    ("requirement", "git+https://github.com/me/mine@main"),
    ("url", "https://host:8080/path@v1"),
    ("words", "a basic convolutional network, sk-learn-something-long, hf_classification_model"),
    ("query", "https://host/?design=blue&max_tokens=100"),
    ("password", None),
    ("password", ""),
]


@pytest.mark.parametrize(("key", "value"), SECRETS)
def test_it_is_taken_for_a_secret(key, value):
    assert is_secret(key, value)
    assert "hunter2" not in str(redacted({"a": [{key: value}]}))
    assert redacted({key: value}) != {key: value}


@pytest.mark.parametrize(("key", "value"), PLAIN)
def test_it_is_not_taken_for_a_secret(key, value):
    assert not is_secret(key, value)
    assert redacted({"a": {key: value}}) == withheld({"a": {key: value}}) == {"a": {key: value}}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["x" * 200_000, "a." * 100_000, "a:" * 100_000, "token" * 40_000, "a-b://" * 3_000])
def test_long_texts_take_no_time(text):
    assert scrubbed(text) == text


def test_an_address_is_shown_without_its_login():
    assert redacted({"storage": "postgresql://me:hunter2@db:5432/x"}) == {"storage": "postgresql://***@db:5432/x"}
    assert scrubbed("cannot reach me:hunter2@head:10001 now") == "cannot reach ***@head:10001 now"


def test_variables_of_workers_are_hidden_but_numbers_switches_and_paths():
    variables = {"WANDB": "swordfish", "OMP_NUM_THREADS": "4", "DATA": "/scratch/me", "VERBOSE": "true", "N": 3}
    shown = redacted({"runtime_env": {"env_vars": variables}})["runtime_env"]["env_vars"]
    assert shown == {**variables, "WANDB": "***"}


DOCUMENT = {
    "data": {"call": "mine:data", "token": "hunter2", "sources": [{"password": "hunter3"}]},
    "run": {"runtime_env": {"env_vars": {"HF_TOKEN": TOKEN, "THREADS": "4"}}, "address": "ray://me:pw@head:1"},
}


def test_what_is_withheld_says_where_it_is_taken_from_and_comes_back(monkeypatch):
    kept = withheld(DOCUMENT)
    assert kept["run"]["runtime_env"]["env_vars"] == {"HF_TOKEN": "*** (environment: HF_TOKEN)", "THREADS": "4"}
    assert kept["data"]["token"] == "*** (environment: AUTOPRUNE_DATA_TOKEN)"
    assert withheld(kept) == redacted(kept) == kept
    missing = []
    restored(kept, lambda path, variable: missing.append((path[0], variable)))
    assert missing == [
        ("data", "AUTOPRUNE_DATA_TOKEN"),
        ("data", "AUTOPRUNE_DATA_SOURCES_0_PASSWORD"),
        ("run", "HF_TOKEN"),
        ("run", "AUTOPRUNE_RUN_ADDRESS"),
    ]
    for variable, value in zip(
        (v for _, v in missing), ("hunter2", "hunter3", TOKEN, "ray://me:pw@head:1"), strict=True
    ):
        monkeypatch.setenv(variable, value)
    assert restored(kept, lambda *missing: pytest.fail("it is there")) == DOCUMENT
    assert secrets_in(DOCUMENT) == {"hunter2", "hunter3", TOKEN, "ray://me:pw@head:1"}


def test_events_have_no_secret_in_them(tmp_path):
    with Events(without({"swordfish"})) as events:
        events.add("worker_died", {"cause": f"401 for swordfish and {TOKEN}", "attempts": 2, "all": ["swordfish"]})
        events.keep(tmp_path / "events.jsonl")
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert {k: v for k, v in json.loads(line).items() if k not in ("time", "event")} == {
        "cause": "401 for *** and ***",
        "attempts": 2,
        "all": ["***"],
    }


def leaking(model, batches):
    if model.conv1.out_channels == 3:
        raise RuntimeError("the server refused swordfish")
    return classification(model, batches)


@pytest.fixture
def leaky(job):
    variables = {"runtime_env": {"env_vars": {"WANDB": "swordfish", "HF_TOKEN": TOKEN}}, "address": "ray://me:pw@h:1"}

    def make(evaluations=30, **changes):
        document = {"name": "tiny", "run": variables, "data": {"call": "mine:data", "token": "hunter2"}}
        executor = Executor("serial", **variables)
        return job("random", evaluations, fitness=leaking, executor=executor, document=document, **changes)

    return make


def test_nothing_a_run_writes_has_a_secret_in_it(leaky, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    search(leaky(), tmp_path / "run")
    resume(leaky(), tmp_path / "run")
    report(tmp_path / "run")
    texts = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} | {"log": caplog.text.encode()}
    assert {"job.yaml", "environment.json", "journal.jsonl", "events.jsonl", "report.html"} <= texts.keys()
    for name, text in texts.items():
        for secret in (b"swordfish", TOKEN.encode(), b"hunter2", b"me:pw"):
            assert secret not in text, name
    assert b"the server refused ***" in texts["journal.jsonl"]
    assert b"the server refused ***" in texts["report.html"]


def test_what_is_said_of_a_member_that_is_left_out_has_no_secret_in_it(leaky, data, tmp_path, caplog):
    examples = data.report[0].inputs[0]

    def refused(model, batches):
        if model.conv1.out_channels < 4 and torch.equal(batches[0].inputs[0], examples):
            raise RuntimeError("the server refused swordfish")
        return classification(model, batches)

    result = search(replace(leaky(), fitness=refused), tmp_path / "run")
    report(tmp_path / "run")
    assert {member.cause for member in result.left_out} == {"RuntimeError: the server refused ***"}
    for name in ("front.json", "report.html"):
        assert b"swordfish" not in (tmp_path / "run" / name).read_bytes()
    assert "swordfish" not in caplog.text


def test_a_report_of_an_older_run_hides_what_its_job_shows(leaky, tmp_path):
    search(leaky(4), tmp_path / "run")
    write_yaml(tmp_path / "run" / "job.yaml", leaky().document)
    assert "hunter2" in (tmp_path / "run" / "job.yaml").read_text()
    report(tmp_path / "run")
    assert not any(
        s in (tmp_path / "run" / "report.html").read_text() for s in ("hunter2", TOKEN, "swordfish", "me:pw")
    )


JOB = """
version: 1
model: {call: "autoprune.zoo:digits_resnet"}
data: {call: "plug.py:data", token: hunter2}
space: {version: 1, units: [{match: "*", levels: 4}]}
objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]
run: {executor: ray, runtime_env: {env_vars: {HF_TOKEN: secret, THREADS: "4"}}}
"""


@pytest.fixture
def written(tmp_path):
    """A run folder with the job.yaml of a job that has secrets."""
    (tmp_path / "plug.py").write_text("def data(token):\n    return token\n")
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "run").mkdir()
    write_yaml(tmp_path / "run" / "job.yaml", withheld(load(tmp_path / "job.yaml").document()))
    return tmp_path / "run"


def test_a_run_takes_its_secrets_from_the_environment(written, monkeypatch):
    monkeypatch.setenv("AUTOPRUNE_DATA_TOKEN", "hunter2")
    monkeypatch.setenv("HF_TOKEN", "secret")
    job = load_run(written).resolve()
    assert job.data() == "hunter2"
    assert job.executor.runtime_env == {"env_vars": {"HF_TOKEN": "secret", "THREADS": "4"}}
    assert yaml.safe_load((written / "job.yaml").read_text())["data"]["token"].startswith("*** (environment")


def test_a_secret_that_is_missing_is_a_sentence_with_its_place_and_may_be_set(written, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    expected = (
        r"job\.yaml:\d+: data\.token: expected the environment variable AUTOPRUNE_DATA_TOKEN, .* --set data\.token="
    )
    with pytest.raises(ConfigError, match=expected):
        load_run(written)
    job = load_run(written, ["data.token=other"]).resolve()  # what workers need is asked for when there are workers
    with pytest.raises(
        ConfigError, match=r"environment variables HF_TOKEN, .*--set run\.runtime_env\.env_vars\.HF_TOKEN="
    ):
        resume(job, written)
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        search(job, written.parent / "new")
    assert not (written.parent / "new").exists()


def test_the_password_of_a_database_is_in_no_message(job, tmp_path):
    search(job("uniform", 3), tmp_path / "run")
    with pytest.raises(ConfigError) as refused:
        export_study(tmp_path / "run", "nothing://me:hunter2@db/x")
    assert "hunter2" not in str(refused.value)
    assert "nothing://***@db/x" in str(refused.value)
