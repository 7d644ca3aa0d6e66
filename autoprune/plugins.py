"""Imports a plug-in by its name, `pkg.mod:name` or `path/to/file.py:name`.

Here: importing, and checking that a call fits the signature. Not here: what a plug-in is for.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from autoprune.errors import PluginError, did_you_mean

Plugin = Callable[..., Any]

FILE_MODULES = "autoprune_plugin_"  # prefix, in sys.modules, of modules imported by file path

_FORMS = "'pkg.mod:name' or 'path/to/file.py:name'"


def load_plugin(name: str, folders: Sequence[Path] = ()) -> Plugin:
    """The function or class that a plug-in name refers to; repeated calls for the same file return the same object.

    Args:
        name: "pkg.mod:name" or "path/to/file.py:name".
        folders: searched for a relative file after the current directory.

    Raises:
        PluginError: the name is malformed, the module is missing or raises while it is imported, the attribute does not
            exist, or it is not callable.
    """
    source, _, attribute = absolute_name(name, folders).rpartition(":")
    module = _file_module(Path(source), name) if source.endswith(".py") else _named_module(source, name)
    plugin = _attribute(module, attribute, name)
    if not callable(plugin):
        raise PluginError(
            f"expected {name!r} to name a function or class, got a {type(plugin).__name__}. Name something callable."
        )
    return plugin


def absolute_name(name: str, folders: Sequence[Path] = ()) -> str:
    """The plug-in name with an absolute file path; a module's name is returned unchanged. PluginError if malformed."""
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise PluginError(
            f"expected {_FORMS}, got {name!r}. Put a colon between the module or file and the name in it."
        )
    if not source.endswith(".py"):
        return name
    found = find_path(source, folders)
    if found is None:
        places = " or ".join(dict.fromkeys(str(folder) for folder in (Path.cwd(), *folders)))
        raise PluginError(
            f"expected a file {source!r} in {places}, found none. Give its path from the current directory."
        )
    return f"{found}:{attribute}"


def find_path(text: str, folders: Sequence[Path] = ()) -> Path | None:
    """The absolute path of a file, looked up in the current directory, then in `folders`; None if it does not exist."""
    path = Path(text).expanduser()
    candidates = (Path.cwd() / path, *(folder / path for folder in folders))
    return next((Path(os.path.abspath(candidate)) for candidate in candidates if candidate.exists()), None)


def misfits(
    plugin: Plugin, given: Sequence[str], always: Sequence[str], options: Iterable[str]
) -> list[tuple[str, str]]:
    """Why `plugin(*given, **always, **options)` cannot be called, as (option, sentence) pairs; empty if it can.

    Types are not checked, and builtins without a signature are accepted.

    Args:
        plugin: the function or class.
        given: names of the positional arguments that the caller passes.
        always: names of the keyword arguments that the caller passes.
        options: names of the keyword arguments that the user adds.

    Returns:
        Pairs of the option concerned ("" if none) and a sentence.
    """
    try:
        parameters = inspect.signature(plugin).parameters
    except ValueError:
        return []
    free, variadic = _free(parameters, len(given))
    if free is None or not (variadic or {*always} <= {*free}):
        wanted = [*given, *(f"{name}=..." for name in always)]
        return [("", f"expected a function of ({', '.join(wanted)}), got one of ({', '.join(parameters)})")]
    open_ = {name: p for name, p in free.items() if name not in always}
    unknown = [key for key in sorted(options) if key in always or not (variadic or key in open_)]
    takes = f"it takes {', '.join(open_)}" if open_ else "it takes none"
    missing = [name for name, p in open_.items() if p.default is p.empty and name not in {*options}]
    return [
        *((key, f"unknown argument {key!r}{did_you_mean(key, open_)}; {takes}") for key in unknown),
        *((name, f"expected the argument {name!r}, it is missing") for name in missing),
    ]


def _free(parameters: Mapping[str, inspect.Parameter], count: int) -> tuple[dict[str, inspect.Parameter] | None, bool]:
    """The parameters left for keywords after `count` positional arguments, and whether any keyword is accepted.

    None in place of the parameters if the plug-in does not accept so many positional arguments.
    """
    kinds = {p.kind for p in parameters.values()}
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < count and inspect.Parameter.VAR_POSITIONAL not in kinds:
        return None, False
    rest = [*positional[count:], *(p for p in parameters.values() if p.kind is p.KEYWORD_ONLY)]
    return {p.name: p for p in rest}, inspect.Parameter.VAR_KEYWORD in kinds


def _named_module(source: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        # only if the module itself or a parent package is missing; otherwise one of the module's own imports failed
        if error.name is None or not f"{source}.".startswith(f"{error.name}."):
            raise PluginError(_at_import(name, error)) from error
        raise PluginError(
            f"module {error.name!r} of {name!r} is not found. Install it, start in the folder that holds it, "
            "or name the file itself: 'path/to/file.py:name'."
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, for example, would end the process as if all were well
        raise PluginError(_at_import(name, error)) from error


def _file_module(path: Path, name: str) -> ModuleType:
    """The module of a file, run once for each path and kept in sys.modules so that its contents can be pickled."""
    key = f"{FILE_MODULES}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"expected a Python file, got {path} in {name!r}")
    module = sys.modules[key] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[key]  # a partly executed module must not be reused
        if isinstance(error, KeyboardInterrupt):
            raise
        raise PluginError(_at_import(name, error)) from error
    return module


def _at_import(name: str, error: BaseException) -> str:
    """A sentence that names the exception raised by importing a plug-in, and its file and line."""
    place, message = _where(error), error.msg if isinstance(error, SyntaxError) else str(error)
    return (
        f"importing {name!r} raised {type(error).__name__} at {place}: {message}. Fix that file; it must import alone."
    )


def _where(error: BaseException) -> str:
    """file:line of an exception, in the plug-in's own file even if a library raised it."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    machinery = (__file__, importlib.__file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in machinery]
    own = [f for f in frames if not f.filename.startswith("<frozen")]
    deepest = [f for f in own if f.filename == own[0].filename][-1:]
    return f"{deepest[0].filename}:{deepest[0].lineno}" if deepest else "an unknown line"


def _attribute(module: ModuleType, attribute: str, name: str) -> object:
    try:
        return functools.reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        public = [word for word in vars(module) if not word.startswith("_")]
        raise PluginError(
            f"{module.__file__ or module.__name__} has no {attribute!r} (from {name!r})"
            f"{did_you_mean(attribute, public)}. It must be defined at the top level of the file."
        ) from error


def plugin_name(plugin: str | Callable[..., Any]) -> str:
    """The qualified name of a plug-in, or of the callable inside a partial."""
    if isinstance(plugin, functools.partial):
        return plugin_name(plugin.func)
    return plugin if isinstance(plugin, str) else getattr(plugin, "__qualname__", type(plugin).__qualname__)


def home_of(kind: Any) -> str:
    """`module:name` of a class or function, the same whether its file is imported, named by path or run as a script."""
    return f"{_module_name(kind.__module__)}:{kind.__qualname__}"


def _module_name(name: str) -> str:
    """A module's name; for a module named by path or run as the main program, the stem of its file."""
    module = sys.modules.get(name)
    spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
    if name == "__main__" and spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return Path(file).stem if file and (name == "__main__" or name.startswith(FILE_MODULES)) else name
