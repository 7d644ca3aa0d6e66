"""The job file: what it may say, what comes of it, and every way to get it wrong."""

import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml

from autoprune.config import JobSpec, load, load_run
from autoprune.config.document import override, parse_document
from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.levels import FLOOR, LevelRule, build_space
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import SearchSpace
from autoprune.core.unit import Unit
from autoprune.errors import ConfigError, PluginError, RunNotFound, SpaceError
from autoprune.plugins import load_plugin, misfits
from autoprune.train.finetune import FineTune
from autoprune.train.recovery.options import Recovery

ROOT = Path(__file__).parents[1]

PLUGINS = """\
from pathlib import Path

def model(width=3):
    return ("model", width)

def data(root: str | Path, seed=0):
    return ("data", root, seed)

def free(**anything):
    return anything

def fitness(model, batches, scale=1.0):
    return {"accuracy": scale}

def narrow(model):
    return 0.0

def scores(weights, statistics):
    return weights

def loss(output, batch):
    return (output, batch)

def cost(kept):
    return float(sum(kept.values()))

class Searcher:
    def __init__(self, problem, *, seed, step=1):
        self.problem, self.seed, self.step = problem, seed, step

class Seedless:
    def __init__(self, problem):
        self.problem = problem

number = 3
"""

JOB = """\
version: 1
model: {call: "plug.py:model"}
data: {call: "plug.py:data", root: here}
space: {version: 1, units: [{match: "*", levels: 4}]}
objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]
fitness: {call: "plug.py:fitness"}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plug.py").write_text(PLUGINS)
    return tmp_path


def job(text=JOB, *overrides, name="job.yaml"):
    Path(name).write_text(text)
    return load(name, overrides)


def problems(text=JOB, *overrides):
    with pytest.raises(ConfigError) as caught:
        job(text, *overrides)
    return caught.value.problems


def replaced(old, new):
    assert old in JOB
    return JOB.replace(old, new)


# what comes of a good file


def test_defaults_are_those_of_the_documentation(folder):
    resolved = job(name="first.yaml").resolve()
    assert (resolved.name, resolved.evaluations, resolved.seed, resolved.guide) == ("first", 300, 0, "kl")
    assert (resolved.criterion, resolved.device, resolved.threads, dict(resolved.costs)) == ("obs", "auto", None, {})
    assert resolved.objectives == (Objective("accuracy", "max"), Objective("macs", "min"))


def test_factories_get_their_arguments(folder):
    resolved = job(JOB, "model.width=7", "data.seed=2").resolve()
    assert resolved.model() == ("model", 7)
    assert resolved.data() == ("data", "here", 2)


def test_fitness_cost_criterion_and_searcher_are_the_users(folder):
    text = replaced('"plug.py:fitness"}', '"plug.py:fitness", scale: 2.5}') + (
        'criterion: {call: "plug.py:scores"}\n'
        'costs: {total: {call: "plug.py:cost"}}\n'
        'search: {searcher: {call: "plug.py:Searcher", step: 4}, guide: null}\n'
    )
    resolved = job(text).resolve()
    assert resolved.fitness(None, []) == {"accuracy": 2.5}
    assert resolved.criterion("w", "s") == "w"
    assert resolved.costs["total"]({"a": 2, "b": 3}) == 5.0
    searcher = resolved.searcher("the problem", 9)
    assert (searcher.problem, searcher.seed, searcher.step) == ("the problem", 9, 4)
    assert resolved.guide is None


def test_a_built_in_searcher_is_made_with_its_options(folder):
    resolved = job(JOB, "search.searcher={name: random}").resolve()
    costs = CostModel({"a": 4}, {"macs": Polynomial.of("a")})
    problem = Problem(SearchSpace(("a",), ((4, 2),)), (Objective("macs", "min"),), costs)
    assert type(resolved.searcher(problem, 3)).__name__ == "RandomSearch"


def test_a_job_of_plug_in_files_pickles(folder):
    text = JOB + 'search: {searcher: {call: "plug.py:Searcher"}}\n'
    resolved = pickle.loads(pickle.dumps(job(text).resolve()))
    assert resolved.model() == ("model", 3)
    assert resolved.searcher(1, 2).seed == 2


def test_options_of_recovery_are_those_of_the_job_and_change_nothing_else(folder):
    assert job().resolve().recover is None
    assert "recover" not in job().document()
    found = job(JOB, "recover.epochs=3", "recover.lr=0.1", "recover.loss=mimic", "recover.augment=flip_crop")
    assert found.resolve().recover == Recovery(epochs=3, lr=0.1, loss="mimic", augment="flip_crop")
    own = job(JOB, "recover.steps=2", 'recover.loss={call: "plug.py:loss"}').resolve().recover
    assert own.loss("output", "batch") == ("output", "batch")
    assert job(JOB, "recover.steps=2", "recover.train=head").resolve().recover.train == "head"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recover={steps: 1, train: most}", "recover.train: expected one of all, norms_biases, head, lora, mask_lora"),
        ("recover.lr=0.1", "recover: expected either epochs or steps, got neither"),
        ("recover={steps: 1, epochs: 1}", "recover: expected either epochs or steps, got epochs=1 and steps=1"),
        ("recover={steps: 1, lr: -1}", "recover.lr: expected at least 0"),
        ("recover={steps: 0}", "steps: expected a whole number from 1"),
        ("recover={steps: 1, loss: hinge}", "recover.loss: expected one of distillation, cross_entropy, kl, mimic or"),
        ("recover={steps: 1, augment: flip}", "recover.augment: expected one of none, flip_crop or"),
        ("recover={steps: 1, optimizer: adam}", "recover.optimizer: expected 'sgd' or 'adamw'"),
        ("recover={steps: 1, rate: 1}", "recover.rate: unknown key"),
    ],
)
def test_wrong_options_of_recovery_are_told_by_their_key(folder, setting, message):
    with pytest.raises(ConfigError) as error:
        job(JOB, setting)
    assert message in str(error.value)


def test_networks_are_trained_where_the_job_says_for_how_long(folder):
    assert job().resolve().finetune is None
    assert "finetune" not in job().document()
    assert job(JOB, "finetune.steps=100").resolve().finetune == FineTune(100, 0.01, 0.9, 0.0, "kl")
    text = JOB + 'finetune: {steps: 7, lr: 1, momentum: 0, weight_decay: 1e-4, loss: {call: "plug.py:loss"}}\n'
    with_own = job(text).resolve().finetune
    assert (with_own.steps, with_own.lr, with_own.momentum, with_own.weight_decay) == (7, 1.0, 0.0, 1e-4)
    assert with_own.loss("output", "batch") == ("output", "batch")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("finetune={lr: 0.1}", "finetune.steps: expected this key (training steps for every network), it is missing"),
        ("finetune.steps=0", "finetune.steps: expected at least 1"),
        ("finetune={steps: 1, lr: 0}", "finetune.lr: expected more than 0"),
        ("finetune={steps: 1, lr: -1}", "finetune.lr: expected more than 0"),
        ("finetune={steps: 1, momentum: 1}", "finetune.momentum: expected less than 1"),
        ("finetune={steps: 1, weight_decay: -1}", "finetune.weight_decay: expected at least 0"),
        ("finetune={steps: 1, loss: hinge}", "finetune.loss: expected one of kl, mse, cross_entropy or {call: ...}"),
        ("finetune={steps: 1, loss: {name: kl, scale: 2}}", "unknown argument 'scale'; the loss kl takes none"),
        ("finetune={steps: 1, epochs: 2}", "finetune.epochs: unknown key"),
    ],
)
def test_a_mistake_about_fine_tuning_is_one_sentence(folder, setting, message):
    (found,) = problems(JOB, setting)
    assert message in found


def test_levels_are_equal_steps_down_to_the_smallest_share(folder):
    rules = job(replaced("levels: 4", "levels: 8")).resolve().rules
    assert rules == (LevelRule("*", (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)),)
    (rule,) = job(replaced("levels: 4", "levels: 4, min_share: 0.4")).resolve().rules
    np.testing.assert_allclose(rule.keep, (1.0, 0.8, 0.6, 0.4))
    assert rule.levels(10) == (10, 8, 6, 4)


def test_explicit_shares_and_skipped_units_are_taken_as_they_are(folder):
    text = replaced(
        '[{match: "*", levels: 4}]',
        "[{match: a, skip: true}, {match: b, keep: [0.5, 1], kind: channels, round_to: 8, min_keep: 4}]",
    )
    assert job(text).resolve().rules == (LevelRule("a"), LevelRule("b", (0.5, 1.0), "channels", 8, 4))


def test_a_space_file_is_found_beside_the_job_and_in_the_current_directory_first(folder):
    text = replaced('{version: 1, units: [{match: "*", levels: 4}]}', "space.yaml")
    (folder / "jobs").mkdir()
    (folder / "jobs/space.yaml").write_text("version: 1\nunits: [{match: beside, levels: 2}]\n")
    assert job(text, name="jobs/job.yaml").resolve().rules[0].match == "beside"
    (folder / "space.yaml").write_text("version: 1\nunits: [{match: here, levels: 2}]\n")
    assert job(text, name="jobs/job.yaml").resolve().rules[0].match == "here"


def test_the_document_makes_the_same_job_from_any_folder(folder, monkeypatch, tmp_path_factory):
    (folder / "here").mkdir()
    text = JOB + "costs: {total: {call: 'plug.py:cost'}}\nsearch: {searcher: uniform, guide: null}\n"
    first = job(text, "model.width=null", "objectives.1.bound=6e-1", name="first.yaml").resolve()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "job.yaml").write_text(yaml.safe_dump(first.document))
    monkeypatch.chdir(elsewhere)
    second = load_run(elsewhere).resolve()
    assert second.document == first.document
    assert (second.name, second.rules, second.objectives) == ("first", first.rules, first.objectives)
    assert second.data() == ("data", str(folder / "here"), 0)
    assert second.model() == ("model", None)
    assert second.objectives[1].bound == 0.6
    assert second.guide is None


def test_a_word_is_no_path_because_a_folder_is_called_so(folder):
    (folder / "train").mkdir()
    (folder / "sub").mkdir()
    text = replaced('"plug.py:model"', '"plug.py:free", split: train, file: ./sub, absent: no/such')
    assert job(text).resolve().model() == {"split": "train", "file": str(folder / "sub"), "absent": "no/such"}


def test_the_shipped_jobs_load(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert load("configs/quickstart.yaml").resolve().searcher.name == "autoprune.searchers.fronts.auto:AutoSearch"
    spec = load("configs/cifar10_resnet20.yaml", ["data.root=no/where", "model.weights=none.pt"])
    assert spec.data.options == {"root": "no/where", "calibrate": 4000, "select": 2000, "seed": 0}
    (rule,) = load("configs/rd_resnet32.yaml", ["data.root=no/where", "model.weights=none.pt"]).resolve().rules
    assert (rule.kind, rule.keep) == ("weights", tuple((100 - removed) / 100 for removed in range(101)))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_job_begins_with_the_command_that_runs_it(path):
    assert path.read_text().startswith(f"# autoprune search configs/{path.name}")


# YAML


def test_numbers_in_exponent_form_are_numbers_and_dates_are_text():
    data = parse_document("a: 1e-3\nb: 2024-01-31\nc: 5\nd: '1e-3'\ne: e3\n", "x").data
    assert data == {"a": 0.001, "b": "2024-01-31", "c": 5, "d": "1e-3", "e": "e3"}


def test_aliases_and_merged_keys_have_their_usual_meaning():
    text = "base: &base {x: 1, y: 2}\nother: {<<: *base, y: 3}\nsame: *base\n"
    document = parse_document(text, "f.yaml")
    assert document.data == {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}, "same": {"x": 1, "y": 2}}
    assert document.place(("other", "y")) == "f.yaml:2"
    assert document.place(("other", "absent")) == "f.yaml:2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^j\.yaml:1: expected a mapping of keys, got an empty file"),
        ("# only a comment\n", "got an empty file"),
        ("- 1\n- 2\n", "j.yaml:1: expected a mapping of keys, got a list"),
        ("version: 1\nmodel: [1\ndata: 2\n", r"j\.yaml:3: expected YAML: .*flow sequence"),
        ("version: 1\n\tmodel: 2\n", "j.yaml:2: expected YAML"),
        ("a: 1\n---\nb: 2\n", "j.yaml:2: expected YAML"),
        ("a: !!python/object:os.system {}\n", r"j\.yaml:1: a: expected no tag, got tag:yaml\.org,2002:python/object"),
        ("a: !!python/name:os.system\n", "j.yaml:1: expected YAML: could not determine a constructor"),
        ("a: \x07\n", "j.yaml:1: expected YAML"),
        ("a: 1\nb: 2\na: 3\n", r"j\.yaml:3: a: expected each key once, got it again after line 1"),
        ("a: {x: 1, x: 2}\n", "j.yaml:1: a.x: expected each key once"),
        ("3: a\n", "j.yaml:1: the file: expected a text as key, got '3'"),
        ("a: {[1, 2]: b}\n", "j.yaml:1: a: expected a text as key, got a list or mapping"),
        ("a: &a [*a]\n", "j.yaml:1: a.0: expected a value, got an alias of its own surroundings"),
    ],
)
def test_text_that_is_no_job_is_refused_with_its_line(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_document(text, "j.yaml")


def test_a_file_that_is_not_there_or_no_text_is_named(folder):
    with pytest.raises(ConfigError, match=r"expected a file 'none\.yaml', found none"):
        load("none.yaml")
    Path("latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml: expected a readable UTF-8 text file"):
        load("latin.yaml")
    with pytest.raises(ConfigError, match="expected a YAML file, got a folder"):
        load(folder)


def test_a_folder_without_a_job_is_no_run(folder):
    with pytest.raises(RunNotFound, match=r"expected a run folder with a job\.yaml"):
        load_run(folder)


# overrides


def test_overrides_make_mappings_on_the_way_and_read_values_as_yaml():
    document = parse_document("a: {b: 1}\nempty:\nlist: [x, {y: 1}]\n", "f")
    settings = ["a.b=[1, 2e0]", "new.deep.key=true", "empty.k=", "list.1.y=a=b", "a.b.0=7"]
    changed, wrong = override(document, settings)
    assert changed.data == {
        "a": {"b": [7, 2.0]},
        "empty": {"k": None},
        "list": ["x", {"y": "a=b"}],
        "new": {"deep": {"key": True}},
    }
    assert wrong == []
    assert document.data == {"a": {"b": 1}, "empty": None, "list": ["x", {"y": 1}]}
    assert changed.place(("a", "b", 1)) == "--set a.b=[1, 2e0]"
    assert changed.place(("list", 0)) == "f:3"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("foo", "--set foo: expected key.path=value such as search.evaluations=100, got 'foo'"),
        ("=3", "expected key.path=value"),
        ("a..b=3", "expected key.path=value"),
        ("a=[1", "--set a=[1: expected YAML"),
        ("version.x=1", "--set version.x=1: version: expected a mapping to set 'x' in, got 1"),
        ("objectives.2.bound=1", "objectives: expected a number from 0 to 1 for the list, got '2'"),
        ("objectives.name=1", "objectives: expected a number from 0 to 1 for the list, got 'name'"),
        ("search.evaluations=many", "--set search.evaluations=many: search.evaluations: expected a whole number"),
        ("serach.seed=1", "--set serach.seed=1: serach: unknown key (did you mean 'search'?)"),
    ],
)
def test_a_bad_override_is_placed_at_the_setting(folder, setting, message):
    (found,) = problems(JOB, setting)
    assert message in found


# mistakes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1\nmodel", "version: 2\nmodel", "job.yaml:1: version: expected 1"),
        ("version: 1\nmodel", "model", "job.yaml:1: version: expected this key"),
        ("fitness:", "fitnes:", "job.yaml:6: fitnes: unknown key (did you mean 'fitness'?). The keys here are version"),
        (
            "model: {",
            "model: 3 #",
            "job.yaml:2: model: expected a mapping (the function that makes the trained network), got 3",
        ),
        ('{call: "plug.py:model"}', "{}", "job.yaml:2: model.call: expected this key"),
        ('"plug.py:model"', "3", "job.yaml:2: model.call: expected a text, got 3"),
        (", direction: max", "", "objective 'accuracy', it is missing. Write `direction: max`."),
        ("accuracy, direction: max", "speed", "Write `direction: max` if more is better, `direction: min` if less is"),
        ("direction: max", "direction: up", "job.yaml:5: objectives.0.direction: expected 'min' or 'max'"),
        ("{name: accuracy, direction: max}", "accuracy", "got 'accuracy'. Write {name: accuracy, direction: max}."),
        ("{name: macs", "{name: accuracy", "job.yaml:5: objectives.1.name: expected each objective once"),
        ("{name: macs", "{name: a<=b", "job.yaml:5: objectives.1.name: expected a name of letters, digits"),
        ("direction: min}", "direction: min, bound: low}", "objectives.1.bound: expected a number"),
        ("direction: min}", "direction: min, bound: .nan}", "objectives.1.bound: expected a finite number"),
        ("levels: 4", "", "job.yaml:4: space.units.0: expected one of keep, levels, grid and skip, got none of them"),
        ("levels: 4", "levels: 4, keep: [0.5]", "got keep and levels"),
        ("levels: 4", "levels: 1", "space.units.0.levels: expected at least 2"),
        ("levels: 4", "keep: [-1]", "space.units.0.keep.0: expected at least 0"),
        ("levels: 4", "keep: [1.5]", "space.units.0.keep.0: expected at most 1"),
        ("levels: 4", "keep: []", "space.units.0.keep: expected a list with at least one entry"),
        ("levels: 4", "keep: [0.5], min_share: 0.5", "space.units.0.min_share: expected it beside levels only"),
        ("levels: 4", "levels: 4, floor: 0", "space.units.0.floor: expected it beside `kind: weights` only, the kind"),
        ("levels: 4", "levels: 4, kind: weights, floor: 1", "space.units.0.floor: expected less than 1"),
        ("levels: 4", "levels: 4, kind: weights, floor: -0.1", "space.units.0.floor: expected at least 0"),
        ("levels: 4", "levels: 4, min_keep: 2.5", "space.units.0.min_keep: expected a whole number of positions or a"),
        ("levels: 4", "levels: 4, min_keep: 0", "space.units.0.min_keep: expected more than 0"),
        (
            "levels: 4",
            "levels: 4, group: 4",
            "space.units.0.group: expected it beside `kind: pattern` only",
        ),
        ("levels: 4", "kind: pattern, levels: 4, group: 1", "space.units.0.group: expected at least 2"),
        ("levels: 4", "grid: permille", "space.units.0.grid: expected 'percent' or 'spdy'"),
        ("levels: 4", "grid: spdy, keep: [0.5]", "got keep and grid"),
        ("levels: 4", "leves: 4, skip: true", "space.units.0.leves: unknown key (did you mean 'levels'?)"),
        ("{version: 1, units", "{units", "job.yaml:4: space.version: expected this key"),
    ],
)
def test_a_mistake_is_one_sentence_with_line_key_and_remedy(folder, old, new, message):
    (found,) = problems(replaced(old, new))
    assert message in found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("masks: osb", "job.yaml:7: masks: expected one of magnitude, wanda, obs or {call: ...}, got 'osb'"),
        ("masks: {name: wanda, p: 2}", "masks.p: unknown argument 'p'; the mask rule wanda takes none"),
        ('costs: {nonzeros: {call: "plug.py:model"}}', "'nonzeros' is computed already. Give the cost another name."),
        ("search: {evaluations: -1}", "job.yaml:7: search.evaluations: expected at least 1"),
        ("search: {evaluations: 0}", "search.evaluations: expected at least 1"),
        ("search: {evaluations: true}", "search.evaluations: expected a whole number"),
        ("search: {front_size: 1}", "search.front_size: expected at least 2"),
        ("search: {seed: 0.5}", "search.seed: expected a whole number"),
        ("search:", "job.yaml:7: search: expected a mapping (search settings, inline or as a file), got nothing"),
        ("search: {searcher: evolutoin}", "got 'evolutoin' (did you mean 'evolution'?)"),
        ("search: {searcher: {name: random, steps: 3}}", "search.searcher.steps: unknown argument 'steps'"),
        ("search: {searcher: {name: random, seed: 3}}", "search.searcher.seed: unknown argument 'seed'"),
        ("search: {searcher: {name: auto, plans: 2.5}}", "search.searcher.plans: expected a whole number, got 2.5"),
        ("search: {searcher: {name: asha, least: x}}", "search.searcher.least: expected a number, got 'x'"),
        ("search: {searcher: {name: additive, total: all}}", "searcher.total: expected 'sum' or 'max', got 'all'"),
        ("search: {searcher: {name: evolution, seeds: 3}}", "searcher.seeds: expected a list, got 3"),
        ("search: {searcher: {name: evolution, seeds: [[0, x]]}}", "seeds.0.1: expected a whole number, got 'x'"),
        ("search: {searcher: {name: asha, source_options: 3}}", "source_options: expected a mapping, got 3"),
        ("search: {searcher: {name: evopress, shares: [1, x]}}", "searcher.shares.1: expected a number, got 'x'"),
        ("search: {searcher: {name: random, call: x}}", "search.searcher: expected either a name"),
        ("search: {searcher: {call: 'plug.py:Seedless'}}", "expected a function of (problem, seed=...), got one of"),
        ("search: {searcher: 3}", "search.searcher: expected a mapping"),
        (
            "criterion: l3",
            "job.yaml:7: criterion: expected one of activation_mean, activation_norm, activation_variance, ",
        ),
        ("criterion: l3", "wanda or {call: ...}, got 'l3'"),
        ("criterion: {name: l2, p: 3}", "criterion.p: unknown argument 'p'; the criterion l2 takes none"),
        ("criterion: {call: 'plug.py:narrow'}", "expected a function of (weights, statistics)"),
        ("costs: {macs: {call: 'plug.py:cost'}}", "costs.macs: 'macs' is computed already"),
        ("costs: {a b: {call: 'plug.py:cost'}}", "job.yaml:7: costs.a b: expected a name of letters, digits and"),
        ("costs: {c: {call: 'plug.py:fitness'}}", "costs.c.batches: expected the argument 'batches', it is missing"),
        (
            "run: {timeout_s: 5}",
            "job.yaml:7: run.timeout_s: expected it with processes or ray only, the executor is serial",
        ),
        (
            "run: {executor: processes, address: auto}",
            "run.address: expected it with ray only, the executor is processes",
        ),
        ("run: {executor: processes, resources: {gpus: 1}}", "run.resources.gpus: expected it with ray only"),
        ("run: {executor: ray, timeout_s: soon}", "run.timeout_s"),
        ("run: {executor: threads}", "run.executor: expected 'serial', 'processes' or 'ray'"),
        ("run: {workers: 2}", "run.workers: expected 1, as the serial executor has one worker, got 2"),
        ("run: {device: gpu}", "run.device: expected a text of a certain form (auto, cpu, mps, cuda or cuda:N)"),
        ("run: {threads: 0}", "run.threads: expected at least 1"),
        ("name: a/b", "name: expected a text of a certain form (name of the run and its folder, without slashes"),
        ("name: ???", "job.yaml:7: name: expected a value in place of ???. Pass --set name=..."),
    ],
)
def test_a_mistake_in_an_optional_section_is_told_too(folder, line, message):
    assert message in problems(f"{JOB}{line}\n")[0]


def test_a_word_is_no_list_of_objectives_and_an_empty_list_none(folder):
    objectives = "[{name: accuracy, direction: max}, {name: macs, direction: min}]"
    (message, *_) = problems(replaced(objectives, "x"))
    assert "objectives: expected a list (the objectives to trade off), got 'x'" in message
    assert "objectives: expected a list with at least one entry" in problems(replaced(objectives, "[]"))[0]


def test_mistakes_in_the_space_file_carry_its_name_and_line(folder):
    Path("sub").mkdir()
    Path("sub/s.yaml").write_text('version: 1\nunits:\n  - match: "*"\n    levels: 4\n    round_to: 0\n')
    (found,) = problems(replaced('{version: 1, units: [{match: "*", levels: 4}]}', "sub/s.yaml"))
    assert found.startswith("sub/s.yaml:5: space.units.0.round_to: expected at least 1")
    Path("sub/s.yaml").write_text("version: [1\n")
    (found,) = problems(replaced('{version: 1, units: [{match: "*", levels: 4}]}', "sub/s.yaml"))
    assert found.startswith("sub/s.yaml:2: expected YAML")


def test_a_missing_space_file_is_named_with_the_line_that_asks_for_it(folder):
    (found,) = problems(replaced('{version: 1, units: [{match: "*", levels: 4}]}', "none.yaml"))
    assert found.startswith("job.yaml:4: space: expected a space file, found no 'none.yaml' in")


def test_a_search_file_stands_for_the_section_and_settings_change_what_it_says(folder):
    Path("s.yaml").write_text("searcher: {name: genetic, population: 9}\nevaluations: 50\nguide: null\n")
    spec = job(JOB, "search=s.yaml", "search.evaluations=7", "search.searcher.parents=3")
    assert (spec.search.evaluations, spec.search.guide) == (7, None)
    assert spec.search.searcher.options == {"population": 9, "parents": 3}
    assert spec.document()["search"]["searcher"] == {"name": "genetic", "population": 9, "parents": 3}
    assert job(JOB + "search: s.yaml\n").search.evaluations == 50


def test_a_later_file_replaces_what_was_set_before(folder):
    Path("s.yaml").write_text("evaluations: 50\n")
    assert job(JOB, "search.evaluations=7", "search.seed=3", "search=s.yaml").search.evaluations == 50
    assert job(JOB + "search: gone.yaml\n", "search=s.yaml").search.evaluations == 50


def test_keys_beside_a_preset_win_over_it(folder):
    Path("s.yaml").write_text("searcher: {name: genetic, population: 9}\nevaluations: 50\n")
    spec = job(JOB + "search: {preset: s.yaml, evaluations: 8}\n", "search.searcher.parents=3")
    assert spec.search.evaluations == 8
    assert spec.search.searcher.options == {"population": 9, "parents": 3}


def test_settings_below_a_space_file_change_what_it_says(folder):
    Path("space.yaml").write_text("version: 1\nunits: [{match: here, levels: 2}]\n")
    text = replaced('{version: 1, units: [{match: "*", levels: 4}]}', "space.yaml")
    assert job(text, "space.units.0.levels=3").resolve().rules[0].keep[1] == 0.5625


def test_a_floor_and_a_least_share_reach_the_rule(folder):
    (rule,) = job(replaced("levels: 4", "levels: 4, kind: weights, floor: 0, min_keep: 0.1")).resolve().rules
    assert (rule.floor, rule.min_keep) == (0, 0.1)
    (rule,) = job(replaced("levels: 4", "levels: 4, kind: weights, min_keep: 12")).resolve().rules
    assert (rule.floor, rule.min_keep) == (FLOOR, 12)


def test_mistakes_in_a_search_file_carry_its_name_and_line(folder):
    Path("sub").mkdir()
    Path("sub/s.yaml").write_text("searcher: auto\nevaluations: 0\n")
    (found,) = problems(JOB, "search=sub/s.yaml")
    assert found.startswith("sub/s.yaml:2: search.evaluations: expected at least 1")
    (found,) = problems(JOB + "search: {preset: sub/s.yaml, seed: -1, evaluations: 5}\n")
    assert found.startswith("job.yaml:7: search.seed: expected at least 0")
    Path("sub/s.yaml").write_text("")
    (found,) = problems(JOB, "search=sub/s.yaml")
    assert found == "sub/s.yaml:1: expected a mapping of keys, got an empty file. Begin with `searcher: auto`."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("search: none.yaml", "job.yaml:7: search: expected a search file, found no 'none.yaml' in"),
        ("search: auto", "Check the path; a searcher alone is `search: {searcher: auto}`."),
        ("search: {preset: none.yaml}", "job.yaml:7: search.preset: expected a search file, found no 'none.yaml' in"),
        ("search: {preset: 3}", "job.yaml:7: search.preset: expected a search file, found no 3 in"),
        ("search: loop.yaml", "loop.yaml:1: preset: expected the keys of a search, got another preset"),
    ],
)
def test_a_search_file_that_cannot_be_had_says_why_and_where(folder, line, message):
    Path("loop.yaml").write_text("preset: loop.yaml\n")
    (found,) = problems(f"{JOB}{line}\n")
    assert message in found


def test_a_pattern_without_a_unit_is_placed_at_its_rule(folder):
    (rule,) = job(replaced('match: "*"', "match: layr1")).resolve().rules
    with pytest.raises(SpaceError, match=r"^job\.yaml:4: pattern 'layr1' matches no unit"):
        build_space([Unit("layer1", "channels", 4, ())], [rule])


def test_all_mistakes_come_at_once(folder):
    text = replaced("version: 1\nmodel", "version: 3\nmodel").replace("plug.py:data", "plug.py:dat")
    text = text.replace("levels: 4", "levels: no").replace("direction: max", "x: 1") + "extra: 1\n"
    found = problems(text, "bad", "search.seed=-1")
    expected = ("--set bad", "version", "data.call", "levels", "objectives.0.direction", "objectives.0.x")
    for key in (*expected, "--set search.seed=-1", "extra"):
        assert any(key in sentence for sentence in found), key
    assert len(found) == 8


# plug-ins


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("plug.py", "expected 'pkg.mod:name' or 'path/to/file.py:name', got 'plug.py'"),
        (":model", "expected 'pkg.mod:name'"),
        ("plug.py:", "expected 'pkg.mod:name'"),
        ("plug.py:modle", "has no 'modle' (from 'plug.py:modle') (did you mean 'model'?)"),
        ("plug.py:number", "to name a function or class, got a int"),
        ("none.py:model", "expected a file 'none.py' in"),
        ("no_such_package.sub:f", "module 'no_such_package' of 'no_such_package.sub:f' is not found"),
        ("json.no_such:f", "module 'json.no_such' of 'json.no_such:f' is not found"),
        ("raises.py:f", "raised ValueError at {folder}/raises.py:3: math domain error"),
        ("needs.py:f", "raised ModuleNotFoundError at {folder}/needs.py:2: No module named 'absent_dependency'"),
        ("syntax.py:f", "raised SyntaxError at {folder}/syntax.py:2"),
        ("leaves.py:f", "raised SystemExit at {folder}/leaves.py:1: 4"),
    ],
)
def test_a_plug_in_that_cannot_be_had_says_why_and_where(folder, call, message):
    (folder / "raises.py").write_text("import math\ndef f():\n    return math.sqrt(-1)\nf()\n")
    (folder / "needs.py").write_text("\nimport absent_dependency\n")
    (folder / "syntax.py").write_text("x = 1\ndef f(:\n")
    (folder / "leaves.py").write_text("raise SystemExit(4)\n")
    with pytest.raises(PluginError) as caught:
        load_plugin(call)
    assert message.format(folder=folder) in str(caught.value).replace(f"'{folder}/plug.py:", "'plug.py:")


def test_a_plug_in_file_is_run_once_and_again_after_it_failed(folder):
    (folder / "once.py").write_text("runs = []\ndef f():\n    runs.append(1)\n    return len(runs)\n")
    assert load_plugin("once.py:f") is load_plugin(f"{folder}/once.py:f")
    (folder / "late.py").write_text("raise ValueError\n")
    with pytest.raises(PluginError, match="ValueError"):
        load_plugin("late.py:f")
    (folder / "late.py").write_text("def f(): return 5\n\n\n")
    assert load_plugin("late.py:f")() == 5


def test_two_files_of_one_name_are_two_modules(folder):
    for name, value in (("a", 1), ("b", 2)):
        (folder / name).mkdir()
        (folder / name / "same.py").write_text(f"def f(): return {value}\n")
    assert (load_plugin("a/same.py:f")(), load_plugin("b/same.py:f")()) == (1, 2)


def test_a_plug_in_is_found_beside_the_job_file(folder):
    (folder / "jobs").mkdir()
    (folder / "jobs/beside.py").write_text("def model(): return 'beside'\n")
    text = replaced("plug.py:model", "beside.py:model")
    assert job(text, name="jobs/job.yaml").resolve().model() == "beside"


@pytest.mark.parametrize(
    ("given", "always", "options", "expected"),
    [
        (1, (), ["b"], []),
        (2, (), [], []),
        (1, (), [], ["b"]),
        (1, (), ["b", "a"], ["a"]),
        (1, (), ["b", "ky"], ["ky"]),
        (1, ("key",), ["b"], []),
        (1, ("key",), ["b", "key"], ["key"]),
        (1, ("seed",), ["b"], [""]),
        (3, (), [], [""]),
    ],
)
def test_arguments_are_held_against_the_signature_as_a_call_would(given, always, options, expected):
    def plugin(a, b, *, key=None):
        return a, b, key

    found = [key for key, _ in misfits(plugin, ("x",) * given, always, options)]
    assert found == expected
    clash = set(always) & set(options)
    if expected and not clash:
        with pytest.raises(TypeError):
            plugin(*range(given), **dict.fromkeys([*always, *options]))
    elif not clash:
        plugin(*range(given), **dict.fromkeys([*always, *options]))


def test_a_builtin_without_a_signature_is_let_through():
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(max)
    assert misfits(max, ("a",), (), ["b"]) == []


def test_the_specification_is_frozen(folder):
    with pytest.raises(ValueError, match="frozen"):
        job().search.seed = 3
    assert isinstance(job(), JobSpec)


# keys that have a new name


def test_an_old_key_means_the_new_one_and_a_remark_names_it(folder):
    spec = job(f"{JOB}search: {{norm_images: 70}}\n")
    assert spec.search.batch_norm_examples == spec.resolve().scoring.batch_norm_examples == 70
    assert spec.remarks == ("job.yaml:7: search.norm_images is now called search.batch_norm_examples",)
    assert spec.document()["search"]["batch_norm_examples"] == 70


def test_a_new_key_has_no_remark(folder):
    spec = job(f"{JOB}search: {{batch_norm_examples: 70}}\n")
    assert (spec.resolve().scoring.batch_norm_examples, spec.remarks) == (70, ())


def test_an_old_key_beside_the_new_one_is_a_mistake(folder):
    (found,) = problems(f"{JOB}search: {{batch_norm_examples: 70, norm_images: 80}}\n")
    wanted = (
        "job.yaml:7: search.norm_images: expected this key or search.batch_norm_examples, got both. Remove this one."
    )
    assert found == wanted


def test_a_setting_with_the_old_key_overrides_the_new_one_of_the_file(folder):
    spec = job(f"{JOB}search: {{batch_norm_examples: 70}}\n", "search.norm_images=80")
    assert spec.search.batch_norm_examples == 80
    assert "search.norm_images is now called search.batch_norm_examples" in spec.remarks[0]


def test_a_setting_with_the_new_key_overrides_the_old_one_of_the_file(folder):
    spec = job(f"{JOB}search: {{norm_images: 70}}\n", "search.batch_norm_examples=80")
    assert spec.search.batch_norm_examples == 80


def test_a_mistake_in_an_old_key_is_reported_where_it_is_written(folder):
    (found,) = problems(f"{JOB}search: {{norm_images: 0}}\n")
    assert found.startswith("job.yaml:7: search.batch_norm_examples: expected")


def test_a_value_may_name_another_key_whose_value_it_repeats(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "version: 1\n"
        'model: {call: "autoprune.zoo:digits_resnet", seed: 0}\n'
        'data: {call: "autoprune.data:digits", seed: "${model.seed}"}\n'
        'space: {version: 1, units: [{match: "*", levels: 4}]}\n'
        "objectives: [{name: kl, direction: min}, {name: macs, direction: min}]\n"
    )
    assert load(path, ["model.seed=3"]).data.options == {"seed": 3}
    with pytest.raises(ConfigError) as caught:
        load(path, ["model.seed=3", "data.seed='${model.sed}'", "name='${search}'", "search.seed=1"])
    assert caught.value.problems == [
        "--set data.seed='${model.sed}': data.seed: expected ${key.path} to name a key of the job, got 'model.sed' "
        "(did you mean 'model.seed'?)",
        "--set name='${search}': name: expected ${search} to name a plain value, that is {'seed': 1}. Write it out.",
    ]
