"""The rooms and who may import whom: read from the source, and from what an import really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import autoprune

ROOT = Path(autoprune.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# room -> the rooms it may import; a room is a folder or a file right under autoprune/
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "core": {"errors"},
    "search": {"core", "errors"},
    "prune": {"core", "errors"},
    "measure": {"core", "prune", "errors"},
    "plugins": {"errors"},
    "data": {"measure", "errors"},
    "zoo": {"data", "prune", "errors"},
    "testing": {"core", "measure", "errors"},
    "run": {"core", "search", "prune", "measure", "data", "plugins", "errors"},
    "config": {"core", "search", "prune", "measure", "data", "run", "plugins", "errors"},
    "console": {"core", "run", "errors"},
    "cli": {"config", "run", "console", "errors", "__init__"},  # the version
    "__main__": {"cli"},
    "__init__": {"core", "prune", "measure", "data", "run", "errors"},  # resolves the public names
}

# who may import what heavy or optional thing, anywhere in its files
ONLY_IN: dict[str, set[str]] = {
    "torch": {"prune", "measure", "data", "zoo", "run", "testing", "__init__"},
    "deap": {"search"},
    "optuna": {"search"},
    "moocore": {"core", "search"},
    "ray": {"run"},
    "cloudpickle": {"run"},
    "sklearn": {"data", "search"},
    "PIL": {"data"},
    "pydantic": {"config"},
    "typer": {"cli"},
    "rich": {"console", "cli"},
    "safetensors": {"run", "zoo"},
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def imports(path: Path, *, types: bool = True) -> Iterator[str]:
    """Full names of what a file imports, in functions too; without `types`, not what only a type checker sees."""
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
    assert {room_of(module_of(path)) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_imports_only_rooms_its_own_may_see(path):
    room = room_of(module_of(path))
    seen = {room_of(name) for name in imports(path) if name.split(".")[0] == "autoprune"}
    seen = {name if name in ROOMS else "__init__" for name in seen}
    assert seen <= ROOMS[room] | {room}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_heavy_and_optional_packages_are_imported_only_where_they_belong(path):
    room = room_of(module_of(path))
    packages = {name.split(".")[0] for name in imports(path)} & set(ONLY_IN)
    assert {package for package in packages if room not in ONLY_IN[package]} == set()


def test_the_rooms_have_no_cycle():
    remaining = dict(ROOMS)
    while remaining:
        free = [room for room, seen in remaining.items() if not seen & set(remaining)]
        assert free, f"these rooms import each other: {sorted(remaining)}"
        for room in free:
            del remaining[room]


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
    files = [module_of(path) for path in FILES if room_of(module_of(path)) in ("core", "search")]
    loaded = loaded_by("import " + ", ".join([*files, "optuna"]))  # which its searcher loads when it is made
    assert loaded & {"torch", "ray"} == set()
    assert {"deap", "moocore", "optuna"} <= loaded


def test_pruning_and_measuring_run_without_searchers():
    files = [module_of(path) for path in FILES if room_of(module_of(path)) in ("prune", "measure")]
    assert loaded_by("import " + ", ".join(files)) & {"optuna", "deap", "ray", "pydantic", "typer"} == set()


def test_contract_tests_for_plugins_load_without_torch():
    assert "torch" not in loaded_by("import autoprune.testing")


def test_optuna_is_loaded_only_by_the_searcher_that_needs_it():
    assert "optuna" not in loaded_by("import autoprune.search.evolution, autoprune.search.auto")
