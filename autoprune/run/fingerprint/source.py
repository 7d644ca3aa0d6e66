"""The source of functions and classes, as text that changes only if their behaviour may change.

Comments, documentation, layout, the name of the module and everything outside a definition do not affect it. Without a
source, as in an interactive session, the bytecode is used instead.
"""

from __future__ import annotations

import ast
import dis
import functools
import importlib.metadata
import inspect
import linecache
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from autoprune.plugins import FILE_MODULES

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef

BYTECODE = f"bytecode of Python {sys.version_info.major}.{sys.version_info.minor}:"  # it differs between versions

# methods that change their object
_CHANGING = re.compile(
    "add|append(left)?|clear|discard|extend(left)?|insert|pop(item|left)?|remove|reverse|setdefault|sort|update|write|put"
)


def is_users_code(module: str) -> bool:
    """Whether a module is the user's code: not part of Python, of autoprune or of an installed package."""
    if module == "__main__" or module.startswith(FILE_MODULES):
        return True
    if module.partition(".")[0] in {"autoprune", *sys.stdlib_module_names}:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not any(Path(file).resolve().is_relative_to(folder) for folder in _installed())


@functools.cache
def _installed() -> tuple[Path, ...]:
    """The folders of Python itself and of installed packages."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(Path(path).resolve() for path in {*paths, *site.getsitepackages(), site.getusersitepackages()})


@functools.cache
def package_of(module: str) -> str:
    """The installed package of a module, with its version; empty if it is in none."""
    top = module.partition(".")[0]
    if is_users_code(module) or top in sys.stdlib_module_names:
        return ""
    try:
        return f"{top} {importlib.metadata.version(top)}"
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top, ())
        return " ".join(f"{name} {importlib.metadata.version(name)}" for name in dict.fromkeys(names))


def definition_of(thing: FunctionType | type) -> Definition | None:
    """The syntax tree of a function or class; None if its source cannot be found."""
    if isinstance(thing, FunctionType):
        return _function(thing.__code__)
    codes = [member.__code__ for member in vars(thing).values() if isinstance(member, FunctionType)]
    file = codes[0].co_filename if codes else getattr(sys.modules.get(thing.__module__), "__file__", None)
    found = [node for name, node in _definitions_in(file or "") if name == thing.__qualname__]
    return next((node for node in reversed(found) if isinstance(node, ast.ClassDef)), None)


@functools.lru_cache(maxsize=4096)
def _function(code: CodeType) -> Definition | None:
    here = [node for _, node in _definitions_in(code.co_filename) if _is_of(node, code)]
    return here[0] if len({_text(node) for node in here}) == 1 else None


def _definitions_in(file: str) -> tuple[tuple[str, Definition], ...]:
    """All functions and classes in the current content of a file, with their qualified names."""
    linecache.checkcache(file)
    return _all_definitions("".join(linecache.getlines(file)))


@functools.lru_cache(maxsize=64)
def _all_definitions(text: str) -> tuple[tuple[str, Definition], ...]:
    try:
        return tuple(_definitions(ast.parse(text), ""))
    except (SyntaxError, ValueError):
        return ()


def _definitions(node: ast.AST, around: str) -> Iterator[tuple[str, Definition]]:
    for child in ast.iter_child_nodes(node):
        inside = around
        if isinstance(child, Definition):
            name = around + ("<lambda>" if isinstance(child, ast.Lambda) else child.name)
            yield name, child
            inside = f"{name}." if isinstance(child, ast.ClassDef) else f"{name}.<locals>."
        yield from _definitions(child, inside)


def _first_line(node: Definition) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min(inner.lineno for inner in (node, *decorators))


def _is_of(node: Definition, code: CodeType) -> bool:
    """Whether a code object was compiled from a definition, judged by its line, name and arguments."""
    if isinstance(node, ast.ClassDef):
        return False
    name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
    arguments = node.args
    plain = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    count = code.co_argcount + code.co_kwonlyargcount
    return (name, _first_line(node), plain) == (code.co_name, code.co_firstlineno, [*code.co_varnames[:count]])


def source_text(thing: FunctionType | type) -> str:
    """The normalised source, or the bytecode if there is none."""
    node = definition_of(thing)
    if node is not None:
        return _text(node)
    if isinstance(thing, type):
        methods = {name: member for name, member in vars(thing).items() if isinstance(member, FunctionType)}
        return BYTECODE + "".join(f"{name}{_instructions(member.__code__)}" for name, member in sorted(methods.items()))
    return BYTECODE + _instructions(thing.__code__)


def _text(node: Definition) -> str:
    """The source in a uniform layout, without documentation."""
    copy = ast.parse(ast.unparse(node))
    for inner in ast.walk(copy):
        body = getattr(inner, "body", None)
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and body and _is_text(body[0]):
            inner.body = body[1:] or [ast.Pass()]
    return ast.unparse(copy)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _instructions(code: CodeType) -> str:
    """The instructions of a code object, without their positions."""
    constants = [_instructions(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, constants))


def _constant(value: object) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def module_text(module: ModuleType) -> str:
    """The normalised source of a whole module; empty if there is none."""
    try:
        return ast.unparse(ast.parse(inspect.getsource(module)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return ""


def names_in(function: FunctionType) -> dict[str, tuple[str, ...]]:
    """The globals and enclosing variables that a function reads, each with the attributes that it reads of them."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys((*_read(function.__code__), *function.__code__.co_freevars), ())
    node = definition_of(function)
    for inner in ast.walk(node) if node is not None else ():
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id in found:
            found[inner.value.id] = (*found[inner.value.id], inner.attr)
    return found


def _read(code: CodeType) -> Iterator[str]:
    """The globals that a code object and its nested functions read."""
    yield from (step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _read(inner)


def imports_in(function: FunctionType) -> list[str]:
    """The modules that a function imports when it runs, by their absolute names."""
    node = definition_of(function)
    package = str(function.__globals__.get("__package__") or "")
    found: list[str] = []
    for inner in ast.walk(node) if node is not None else ():
        if isinstance(inner, ast.Import):
            found += [alias.name for alias in inner.names]
        elif isinstance(inner, ast.ImportFrom):
            above = package.rsplit(".", inner.level - 1)[0] if inner.level > 1 else package
            base = ".".join(filter(None, (above if inner.level else "", inner.module or "")))
            found += [base, *(f"{base}.{alias.name}" for alias in inner.names)]
    return found


def attributes_in(thing: FunctionType | type) -> frozenset[str]:
    """All names of attributes that the code of a function or class reads."""
    node = definition_of(thing)
    return (
        frozenset(n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)) if node is not None else frozenset()
    )


def changed_in(thing: FunctionType) -> frozenset[str]:
    """The variables and attributes that a function changes while it runs: counters, caches and records of calls."""
    node = definition_of(thing)
    if node is None:
        return frozenset()
    return frozenset(name for inner in ast.walk(node) for name in _changed(inner) if name)


def _changed(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Global | ast.Nonlocal):
        return list(node.names)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _CHANGING.fullmatch(node.func.attr):
        return [_last_name(node.func.value)]
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        return [node.attr, _last_name(node.value)]
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return [_last_name(node.value)]
    return []


def _last_name(node: ast.AST) -> str:
    """The last name of an expression: `calls` for calls, self.calls and calls["a"]."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def changed_by(kind: type, called: frozenset[str]) -> frozenset[str]:
    """The attributes that a user's class changes in the called methods and in the methods that these call."""
    methods: dict[str, FunctionType] = {}
    for own in reversed(kind.__mro__):
        if is_users_code(own.__module__):
            methods |= {name: member for name, member in vars(own).items() if isinstance(member, FunctionType)}
    reached, new = set[str](), {*called} & methods.keys() - {"__init__", "__new__"}
    while new:
        reached |= new
        new = {name for method in new for name in attributes_in(methods[method]) & methods.keys()} - reached
    return frozenset(name for method in reached for name in changed_in(methods[method]))
