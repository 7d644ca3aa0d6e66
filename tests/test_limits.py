"""Job files and arguments that ask for too much, or nest without end: a sentence before any work."""

import time

import pytest

from autoprune.config import load
from autoprune.config.document import parse_document
from autoprune.config.limits import DEEPEST
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Bound, Objective
from autoprune.errors import ConfigError
from autoprune.measure.fitness import classification, reconstruction
from autoprune.measure.settings import Scoring
from autoprune.run.session.job import Executor, Job, Stop

JOB = """\
version: 1
model: {call: "autoprune.zoo:digits_resnet"}
data: {call: "autoprune.data:digits"}
space: {version: 1, units: [{match: "*", levels: 8}]}
objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path / "job.yaml"


@pytest.mark.parametrize(
    "setting",
    [
        "space.units.0.levels=1000000000",
        "space.units.0.levels=1e9",
        "space.units.0={match: '*', keep: [" + "0.5," * 10_001 + "]}",
        "space.units.0.round_to=10000000000",
        "space.units.0.min_keep=0",
        "run.threads=1000000",
        "run.threads=1e6",
        "run.workers=100000",
        "run.resources.cpus=1e6",
        "run.resources.memory_gib=1e300",
        "run.reuse_gib=1e308",
        "run.attempts=1000000",
        "run.timeout_s=.inf",
        "run.tune={batch: -1}",
        "run.tune={threads: 100000}",
        "search.evaluations=0",
        "search.evaluations=1e12",
        "search.evaluations=1000000000000",
        "search.front_size=0",
        "search.front_size=1000000000",
        "search.seed=-1",
        "search.seed=4294967296",
        "search.batch_norm_examples=0",
        "search.norm_images=0",
        "search.stop={seconds: .nan}",
        "search.stop={seconds: .inf}",
        "search.stop={target: accuracy>=1e999}",
        "search.stop={target: ''}",
        "search.stop={target: acuracy>=0.9}",
        "search.guide=''",
        "search.guide=kll",
        "objectives.0.name=''",
        "objectives.0.bound=.nan",
        "objectives.0.bound=.inf",
        "objectives.0.name=acuracy",
        "expected={accuracy: .nan}",
        "expected={acuracy: 0.9}",
        "expected=0.9",
        "name=''",
        'name="a\\0b"',
        "name=" + "a" * 300,
        "finetune={steps: 0}",
        "finetune={steps: 10, lr: .inf}",
    ],
)
def test_a_setting_out_of_all_bounds_is_a_sentence_with_its_key(path, setting):
    with pytest.raises(ConfigError) as told:
        load(path, [setting])
    key = setting.partition("=")[0].split(".")[0]
    assert all(key in problem and "expected" in problem for problem in told.value.problems), told.value
    assert all(len(problem) < len(setting) + 500 for problem in told.value.problems)


def test_a_misspelt_objective_is_found_in_the_file_with_the_closest_name(path):
    path.write_text(JOB.replace("name: accuracy", "name: acuracy"))
    with pytest.raises(ConfigError, match=r"job.yaml:5: objectives.0.name: expected one of .*mean 'accuracy'\?"):
        load(path)


def test_names_that_a_fitness_of_the_users_own_may_report_are_left_to_the_first_measurement(path):
    (path.parent / "mine.py").write_text("def speed(model, batches):\n    return {'speed': 1.0}\n")
    path.write_text(
        JOB.replace("name: accuracy", "name: speed") + f'fitness: {{call: "{path.parent}/mine.py:speed"}}\n'
    )
    assert load(path, ["search.guide=null"]).objectives[0].name == "speed"


def aliases(levels, wide):
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * wide)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merges(levels):
    lines = ["m0: &m0 {k: 1}"] + [f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (aliases(12, 9), "after aliases are expanded"),
        (aliases(200, 1), "after aliases are expanded"),
        (merges(40), "after aliases are expanded"),
        ("a: " + "[" * 20_000 + "]" * 20_000, "within each other"),
        ("a: " + "{b: " * 5_000 + "1" + "}" * 5_000, "within each other"),
        ("\n".join(" " * i + "a:" for i in range(300)), "within each other"),
        ("- " * 1000 + "1", "within each other"),
        ("[" * 100_000, "within each other"),
        ("a: &a [*a]", "alias of its own surroundings"),
    ],
)
def test_a_text_that_multiplies_or_nests_without_end_is_refused_at_once(text, message):
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=message):
        parse_document(text, "job.yaml")
    assert time.perf_counter() - start < 2


def test_ordinary_aliases_merges_and_nesting_are_read():
    depth = DEEPEST - 1
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\nd: " + "[" * (depth - 1) + "1" + "]" * (depth - 1)
    data = parse_document(text, "job.yaml").data
    assert data["b"] == {"x": 1, "y": 3}
    assert data["c"] == [{"x": 1, "y": 2}] * 2


def test_what_is_no_job_file_is_told(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_bytes(b"#" * 5_000_000)
    for name, message in [("", "got a folder"), ("bytes.yaml", "UTF-8"), ("large.yaml", "at most 4,000,000 bytes")]:
        with pytest.raises(ConfigError, match=message):
            load(tmp_path / name)
    with pytest.raises(ConfigError, match="at most 4,000,000 bytes"):
        load("/dev/zero")


def test_a_byte_order_mark_is_no_mistake(path):
    path.write_bytes(b"\xef\xbb\xbf" + JOB.encode())
    assert load(path).version == 1


def job(**changes):
    given = {
        "name": "tiny",
        "model": lambda: None,
        "data": lambda: None,
        "rules": (LevelRule("*", (0.5,)),),
        "objectives": (Objective("accuracy", "max"), Objective("macs", "min")),
        "searcher": lambda problem, seed: None,
        "fitness": classification,
    }
    return Job(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluations": 0}, "evaluations: expected a whole number from 1"),
        ({"evaluations": 1e3}, "evaluations: expected a whole number from 1"),
        ({"evaluations": True}, "evaluations: expected a whole number"),
        ({"seed": -1}, "seed: expected a whole number from 0 to 4294967295, got -1"),
        ({"seed": 2**32}, "seed: expected a whole number from 0"),
        ({"front_size": 0}, "front_size: expected"),
        ({"threads": 10**6}, "threads: expected"),
        ({"compensation": "sequental"}, "did you mean 'sequential'"),
        ({"criterion": "l3"}, "criterion: expected one of"),
        ({"masks": "wandaa"}, "did you mean 'wanda'"),
        ({"guide": "kll"}, "search.guide: expected one of .* got 'kll'"),
        ({"objectives": (Objective("acuracy", "max"),)}, "objectives.0.name: .*did you mean 'accuracy'"),
        ({"fitness": reconstruction, "guide": "mse"}, "objectives.0.name: expected one of mse, macs"),
        ({"stop": Stop(target=(Bound("top1", ">=", 0.5),))}, "search.stop.target: expected one of"),
        ({"expected": {"top1": 0.5}}, "expected.top1: expected one of"),
        ({"seed": -1, "evaluations": 0}, "evaluations: .*\nseed: "),
    ],
)
def test_a_job_made_in_python_is_held_to_the_same_limits(changes, message):
    with pytest.raises(ConfigError, match=message):
        job(**changes)


@pytest.mark.parametrize("examples", [0, -5, 2.5, True])
def test_settings_of_scoring_are_held_to_the_same_limits(examples):
    with pytest.raises(ConfigError, match="batch_norm_examples: expected a whole number from 1, got"):
        Scoring(batch_norm_examples=examples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_norms": "anchor"}, "batch_norms: expected one of .*did you mean 'anchored'"),
        ({"reuse_gib": -1}, "reuse_gib: expected a number from 0"),
        ({"reuse_gib": float("nan")}, "reuse_gib: expected a number from 0"),
        ({"reuse_gib": 2e6}, r"reuse_gib: expected a number from 0 up to 1e\+06"),
        ({"batch_norms": "none", "batch_norm_examples": 0}, "batch_norms: .*\nbatch_norm_examples: "),
    ],
)
def test_wrong_options_of_scoring_are_all_told(options, message):
    with pytest.raises(ConfigError, match=message):
        Scoring(**options)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "proceses"},
        {"workers": 0},
        {"workers": 10**5},
        {"workers": 1.5},
        {"cpus": 0},
        {"cpus": float("nan")},
        {"gpus": -1},
        {"memory_bytes": 0},
        {"attempts": 0},
        {"timeout": float("inf")},
        {"timeout": -1},
    ],
)
def test_an_executor_out_of_bounds_is_refused(changes):
    with pytest.raises(ConfigError, match="expected"):
        Executor(**changes)
