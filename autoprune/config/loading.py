"""Reads a job file, applies overrides and checks it."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from autoprune.config.absent import NAME as ABSENT
from autoprune.config.calls import Context
from autoprune.config.document import Document, KeyPath, blank_keys, dotted_key, override, read_document
from autoprune.config.explain import explain
from autoprune.config.files import assembled
from autoprune.config.references import with_references
from autoprune.config.renamed import with_new_names
from autoprune.config.shipped import shipped_file, taken
from autoprune.config.spec import JobSpec
from autoprune.errors import ConfigError
from autoprune.run.fingerprint.secrets import restored
from autoprune.run.records.folder import RunFolder

MADE_BY = "made_by"  # the key that job files of runs from Python have


def load(path: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """The job of a YAML file after the settings `a.b=c`, with every plug-in imported and checked against its arguments.

    Relative files in it are looked for in the current directory, then in the file's folder. The job file, and the space
    and search files it names, may also be files that come with autoprune, such as configs/quickstart.yaml; the
    `remarks` of the result name those that were taken, and keys that have a new name.

    Raises:
        ConfigError: there are mistakes in the file, in its space and search files, in the settings or in the plug-ins;
            the error has all of them.
    """
    given = Path(path)
    shipped = None if given.exists() else shipped_file(given)
    path = shipped or given
    return _validated(read_document(path), overrides, path, [taken(given, shipped)] if shipped else [])


def _validated(read: Document, overrides: Sequence[str], path: Path, remarks: Sequence[str] = ()) -> JobSpec:
    """The job of what a file holds, after the settings."""
    whole = assembled(read, overrides, path.parent)
    document, dangling = with_references(whole.document)
    document, absent = with_secrets(document)
    document, doubled, renamed = with_new_names(document)
    problems = whole.problems + list(itertools.chain(*whole.broken.values())) + dangling + absent + doubled
    data = {"name": path.stem.lstrip(".") or "job", **document.data}
    try:
        spec = JobSpec.model_validate(
            data, context=Context(document, (path.parent.absolute(),), (*remarks, *whole.remarks, *renamed))
        )
    except ValidationError as error:
        raise ConfigError(problems + explain(error, JobSpec, document, ignore=whole.broken)) from None
    if problems:
        raise ConfigError(problems)
    return spec


def with_secrets(document: Document) -> tuple[Document, list[str]]:
    """The document with the secrets that a run folder does not store, and a sentence for each that is not set.

    Secrets that only workers need are not required here: a run can be exported without them.
    """
    problems: list[str] = []

    def miss(path: KeyPath, variable: str) -> None:
        if path[0] != "run":
            sentence = (
                f"expected the environment variable {variable}, which is not set. Possible secrets are not written to "
                f"a run folder; set it, or pass --set {dotted_key(path)}=..."
            )
            problems.append(document.problem(path, sentence))

    return replace(document, data=restored(document.data, miss)), problems


def load_run(
    folder: str | Path, overrides: Sequence[str] = (), command: str = "", given: Collection[str] = ()
) -> JobSpec:
    """The job of a run folder after the settings.

    Args:
        folder: the run folder.
        overrides: settings `a.b=c`.
        command: what was typed, for the message about parts that a run from Python does not name.
        given: keys of code that the caller puts into the resolved job, such as "model" or "search.searcher"; `absent`
            stands there.

    Raises:
        RunNotFound: there is no run.
        ConfigError: the job is not valid, or it was made in Python and its code is not named.
    """
    path = RunFolder.open(Path(folder)).job
    read = read_document(path)
    settings = [*(f'{key}={{call: "{ABSENT}"}}' for key in given), *overrides]
    if MADE_BY not in read.data:
        return _validated(read, settings, path)
    if "version" not in read.data:
        raise ConfigError(
            f"expected a run whose job.yaml has its settings, {folder} was started in Python by an earlier autoprune. "
            "Continue it there: autoprune.search(the same arguments, resume=True)."
        )
    read = replace(read, data={key: value for key, value in read.data.items() if key != MADE_BY})
    if left := blank_keys(override(read, settings)[0]):
        raise ConfigError(_unnamed(folder, left, command, given))
    return _validated(read, settings, path)


def _unnamed(folder: str | Path, keys: Sequence[str], command: str, given: Collection[str]) -> str:
    """What to pass for code that a run from Python does not name."""
    options = {"model": "--model MODULE:FUNCTION", "data": "--data MODULE:FUNCTION"}
    shown = [options.get(key, f"--set '{key}={{call: MODULE:FUNCTION}}'") for key in keys]
    typed = f"{command or f'autoprune resume {shlex.quote(str(folder))}'} {' '.join(shown)}"
    arguments = dict.fromkeys(_argument(key) for key in (*given, *keys))
    return (
        f"{folder} was started in Python, and its job.yaml has no name for {', '.join(keys)}. Name the functions, as a "
        f"job file does (pkg.mod:name or file.py:name): {typed}. In Python, pass them: "
        f"autoprune.open_run({str(folder)!r}, {', '.join(f'{name}=...' for name in arguments)})."
    )


def _argument(key: str) -> str:
    """The argument of open_run that a key of a job file is given by."""
    return "costs" if key.startswith("costs.") else key.rpartition(".")[2]
