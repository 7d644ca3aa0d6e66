"""Which room may import which: read from the source, and from the modules that an import really loads."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import autoprune

ROOT = Path(autoprune.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

LARGEST = 16  # files a folder may have side by side

# room -> the rooms it may import; a room is a folder or a file right under autoprune/
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "plugins": {"errors"},
    "core": {"errors"},
    "plan.exact": {"core", "errors"},
    "plan": {"core", "plan.exact", "errors"},
    "searchers": {"core", "errors"},
    "searchers.common": {"core", "plan", "errors"},
    "searchers.one_budget": {"core", "plan", "searchers.common", "errors"},
    "searchers.rules": {"core", "plan", "searchers.common", "searchers.one_budget", "errors"},
    "searchers.partial": {"core", "plan", "searchers", "searchers.common", "errors"},
    "searchers.optuna": {"core", "plan", "searchers.common", "searchers.partial", "errors"},
    "searchers.fronts": {
        *("core", "plan", "searchers", "searchers.common", "searchers.partial", "searchers.rules", "errors"),
    },
    "prune.devices": {"errors"},
    "prune.modules": {"core", "errors"},
    "prune.passes": {"prune.devices", "prune.modules", "errors"},
    "prune.structure.rules": {"prune.structure"},
    "prune.structure": {"core", "prune.modules", "prune.passes", "prune.structure.rules", "errors"},
    "prune.surgery": {"core", "prune.devices", "prune.modules", "prune.passes", "prune.structure", "errors"},
    "prune.moments": {
        *("core", "prune.devices", "prune.modules", "prune.passes", "prune.structure", "prune.surgery", "errors"),
    },
    "prune.criteria": {
        *("core", "prune.devices", "prune.modules", "prune.passes", "prune.structure", "prune.surgery"),
        *("prune.moments", "errors"),
    },
    "prune.bank": {
        *(
            "core",
            "prune.devices",
            "prune.modules",
            "prune.structure",
            "prune.surgery",
            "prune.moments",
            "prune.criteria",
            "errors",
        ),
    },
    "prune.compensation": {
        *(
            "prune.devices",
            "prune.modules",
            "prune.passes",
            "prune.structure",
            "prune.surgery",
            "prune.moments",
            "core",
            "errors",
        ),
    },
    "prune": {
        *("core", "prune.modules", "prune.passes", "prune.structure", "prune.surgery", "prune.criteria", "errors"),
    },
    "measure.batch_norms": {"measure", "prune.devices", "prune.modules", "prune.passes", "prune.surgery", "errors"},
    "measure.harm": {"core", "measure", "prune.devices", "prune.modules", "errors"},
    "measure": {
        *("core", "prune.devices", "prune.modules", "prune.passes", "prune.surgery", "prune.moments", "prune.bank"),
        *("measure.batch_norms", "measure.harm", "errors"),
    },
    "train.rounds": {"core", "train", "measure.batch_norms", "prune.bank", "prune.modules", "errors"},
    "train": {"core", "measure", "measure.batch_norms", "prune.modules", "prune.passes", "errors"},
    "train.recovery": {
        *("core", "measure", "train", "prune.devices", "prune.modules", "prune.passes", "plugins", "errors"),
    },
    "pretrained": {"prune.modules", "prune.passes", "prune.surgery", "errors"},
    "data": {"measure", "pretrained", "errors"},
    "zoo": {"data", "prune.modules", "errors"},
    "testing": {
        *("core", "measure", "train", "data", "prune", "prune.modules", "prune.passes", "prune.structure"),
        *("prune.structure.rules", "prune.surgery", "prune.moments", "prune.criteria", "prune.bank"),
        *("run.session", "run.records", "run.results", "errors"),
    },
    "run.fingerprint": {"prune.modules", "plugins"},
    "run.records": {"core", "measure", "errors"},
    "run.session": {
        "pretrained",
        *("core", "plan", "prune", "prune.modules", "prune.passes", "prune.structure"),
        *("prune.devices", "prune.moments", "prune.criteria", "prune.bank", "prune.compensation"),
        *("measure", "measure.batch_norms", "train", "train.recovery", "data"),
        *("run.fingerprint", "run.records", "plugins", "errors"),
    },
    "run.executors": {"core", "measure", "run.records", "run.session", "plugins", "errors"},
    "run.forecast": {
        *("core", "measure", "measure.batch_norms", "prune.devices", "prune.modules", "prune.passes", "prune.surgery"),
        *("prune.moments", "prune.criteria", "prune.bank", "prune.compensation", "searchers"),
        *("train.recovery", "run.session", "run.executors", "errors"),
    },
    "run.loop": {"core", "run.fingerprint", "run.records", "run.session", "run.executors", "plugins", "errors"},
    "run.results": {
        *("core", "plan", "searchers.optuna", "prune.modules", "prune.passes", "prune.structure", "prune.surgery"),
        *("prune.bank", "prune.compensation", "measure", "measure.harm"),
        *("run.fingerprint", "run.records", "run.session", "run.loop"),
        *("train.recovery", "pretrained", "plugins", "errors"),
    },
    "run.audits": {
        *("core", "plan", "prune.modules", "prune.bank", "prune.criteria", "prune.compensation", "measure"),
        *("measure.batch_norms", "train", "train.recovery", "run.records", "run.recovery", "run.session"),
        *("run.results", "errors"),
    },
    "run.harms": {
        *(
            "core",
            "prune.devices",
            "prune.modules",
            "prune.bank",
            "prune.criteria",
            "measure",
            "measure.harm",
            "errors",
        ),
    },
    "run.recovery": {
        *("data", "prune.modules", "train", "train.recovery", "run.records", "run.session", "run.results", "errors"),
    },
    "run.report": {"core", "run.recovery", "run.audits", "run.fingerprint", "run.records", "run.results", "errors"},
    "run.criterion": {
        *("core", "prune.modules", "prune.criteria", "measure", "run.loop", "run.records", "run.session", "errors"),
    },
    "run": {
        *(
            "core",
            "plan",
            "searchers",
            "prune.modules",
            "prune.passes",
            "prune.structure",
            "measure",
            "measure.harm",
            "plugins",
            "errors",
        ),
        *("run.fingerprint", "run.records", "run.session", "run.executors", "run.forecast", "run.loop", "run.results"),
        *("train.recovery", "run.recovery", "run.audits", "run.harms", "run.report", "run.criterion"),
    },
    "api": {
        *("core", "searchers", "prune.devices", "prune.modules", "prune.passes", "prune.criteria", "prune.bank"),
        *(
            "measure",
            "train",
            "train.recovery",
            "train.rounds",
            "data",
            "run",
            "run.audits",
            "run.recovery",
        ),
        *("run.records", "run.report", "run.results"),
        *("run.session", "pretrained", "config", "console", "plugins", "errors"),
    },
    "config": {
        *("core", "searchers", "prune.criteria", "prune.bank", "measure", "train", "train.recovery"),
        *("run.fingerprint", "run.records", "run.session", "plugins", "errors"),
    },
    "console": {"core", "run", "run.records", "run.results", "run.session"},
    "cli": {"config", "run", "run.records", "console", "errors", "__init__"},  # the version
    "__main__": {"cli"},
    "__init__": {  # resolves the public names
        *("api", "core", "prune", "prune.modules", "prune.passes", "prune.structure", "prune.structure.rules"),
        *("prune.surgery", "prune.criteria", "measure", "measure.batch_norms", "train", "train.recovery"),
        *("train.rounds", "data", "run.results", "run.session", "errors"),
    },
}

# the rooms that may import each heavy or optional package, anywhere in their files; a room includes the rooms within it
ONLY_IN: dict[str, set[str]] = {
    "torch": {"prune", "measure", "train", "pretrained", "data", "zoo", "run", "api", "testing", "__init__"},
    "transformers": {"pretrained"},
    "accelerate": {"train.recovery"},
    "datasets": {"pretrained"},
    "deap": {"searchers.fronts", "run.criterion"},
    "optuna": {"searchers.optuna"},
    "moocore": {"core", "plan", "searchers"},
    "ray": {"run.executors"},
    "cloudpickle": {"run.executors"},
    "sklearn": {"data", "searchers.fronts"},
    "PIL": {"data"},
    "pydantic": {"config"},
    "typer": {"cli"},
    "rich": {"console", "cli"},
    "safetensors": {"run.records", "run.recovery", "run.results", "run.session", "zoo"},
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The innermost room that a module or a name in it belongs to; __init__ for names of the package itself."""
    parts = module.split(".")[1:]
    rooms = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((room for room in rooms if room in ROOMS), "__init__")


def is_within(room: str, others: set[str]) -> bool:
    return any(room == other or room.startswith(f"{other}.") for other in others)


@functools.cache
def imports(path: Path, *, types: bool = True) -> tuple[str, ...]:
    """Full names of what a file imports, in functions too; without `types`, not what only a type checker sees."""
    return tuple(read_imports(path, types))


def read_imports(path: Path, types: bool) -> Iterator[str]:
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in nodes(ast.parse(path.read_text(encoding="utf-8")), types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            origin = (above + (node.module or "")).rstrip(".")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def nodes(tree: ast.AST, types: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if types or not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
            yield child
            yield from nodes(child, types)


def test_every_file_is_in_a_room():
    folders = {module_of(path).removeprefix("autoprune.") for path in FILES if path.name == "__init__.py"}
    files = {path.stem for path in FILES if path.parent == ROOT}
    assert (folders - {"autoprune"}) | files == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_imports_only_rooms_its_own_may_see(path):
    room = room_of(module_of(path))
    seen = {room_of(name) for name in imports(path) if name.split(".")[0] == "autoprune"}
    assert seen <= ROOMS[room] | {room}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_heavy_and_optional_packages_are_imported_only_where_they_belong(path):
    room = room_of(module_of(path))
    packages = {name.split(".")[0] for name in imports(path)} & set(ONLY_IN)
    assert {package for package in packages if not is_within(room, ONLY_IN[package])} == set()


def test_no_folder_has_more_files_than_one_can_take_in():
    counts = Counter(path.parent.relative_to(ROOT) for path in FILES)
    assert {str(folder): count for folder, count in counts.items() if count > LARGEST} == {}


def test_the_rooms_have_no_cycle():
    """A room and one within it are one place: the rules of operators read axes, and the trace calls the rules."""
    remaining = {room: {other for other in seen if not is_nested(room, other)} for room, seen in ROOMS.items()}
    while remaining:
        free = [room for room, seen in remaining.items() if not seen & set(remaining)]
        assert free, f"these rooms import each other: {sorted(remaining)}"
        for room in free:
            del remaining[room]


def is_nested(room: str, other: str) -> bool:
    return is_within(room, {other}) or is_within(other, {room})


def test_every_import_that_is_allowed_is_made():
    made = {(room_of(module_of(path)), room_of(name)) for path in FILES for name in imports(path)}
    assert {(room, other) for room, others in ROOMS.items() for other in others} - made == set()


def test_no_modules_import_each_other_not_even_later_in_a_function():
    modules = {module_of(path): path for path in FILES}
    pending = {name: {known(f, modules) for f in imports(p, types=False)} - {name} for name, p in modules.items()}
    while pending:
        free = [name for name, targets in pending.items() if not targets & set(pending)]
        assert free, f"these modules import each other: {sorted(pending)}"
        for name in free:
            del pending[name]


def known(name: str, modules: dict[str, Path]) -> str:
    """The module of the package an imported name is, or is in; empty for anything else."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else ""


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement in a fresh interpreter."""
    code = f"import sys; {statement}; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(done.stdout.split())


HEAVY = {"torch", "optuna", "deap", "ray", "pydantic", "sklearn", "PIL", "typer", "moocore", "yaml"}


def test_importing_the_package_loads_numpy_at_most():
    assert loaded_by("import autoprune") & HEAVY == set()


def test_core_and_the_searchers_run_without_torch():
    files = [
        module_of(path) for path in FILES if room_of(module_of(path)).split(".")[0] in ("core", "plan", "searchers")
    ]
    loaded = loaded_by("import " + ", ".join([*files, "optuna"]))  # which its searcher loads when it is made
    assert loaded & {"torch", "ray"} == set()
    assert {"deap", "moocore", "optuna"} <= loaded


def test_pruning_and_measuring_run_without_searchers():
    files = [module_of(path) for path in FILES if room_of(module_of(path)).split(".")[0] in ("prune", "measure")]
    assert loaded_by("import " + ", ".join(files)) & {"optuna", "deap", "ray", "pydantic", "typer"} == set()


def test_contract_tests_for_plugins_load_without_torch():
    assert "torch" not in loaded_by("import autoprune.testing")


def test_optuna_is_loaded_only_by_the_searcher_that_needs_it():
    assert "optuna" not in loaded_by("import autoprune.searchers.fronts.evolution, autoprune.searchers.fronts.auto")
