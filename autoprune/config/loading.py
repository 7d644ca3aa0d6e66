"""Reads a job file, applies overrides and checks it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from autoprune.config.calls import Context
from autoprune.config.document import Document, KeyPath, dotted_key, read_document
from autoprune.config.explain import explain
from autoprune.config.files import assembled
from autoprune.config.shipped import shipped_file, taken
from autoprune.config.spec import JobSpec
from autoprune.errors import ConfigError
from autoprune.run.fingerprint.secrets import restored
from autoprune.run.records.folder import RunFolder


def load(path: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """The job of a YAML file after the settings `a.b=c`, with every plug-in imported and checked against its arguments.

    Relative files in it are looked for in the current directory, then in the file's folder. The job file, and the space
    and search files it names, may also be files that come with autoprune, such as configs/quickstart.yaml; the
    `remarks` of the result name those that were taken.

    Raises:
        ConfigError: there are mistakes in the file, in its space and search files, in the settings or in the plug-ins;
            the error has all of them.
    """
    given = Path(path)
    shipped = None if given.exists() else shipped_file(given)
    path = shipped or given
    whole = assembled(read_document(path), overrides, path.parent)
    remarks = (*([taken(given, shipped)] if shipped else []), *whole.remarks)
    document, absent = with_secrets(whole.document)
    problems = whole.problems + list(itertools.chain(*whole.broken.values())) + absent
    data = {"name": path.stem.lstrip(".") or "job", **document.data}
    try:
        spec = JobSpec.model_validate(data, context=Context(document, (path.parent.absolute(),), remarks))
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


def load_run(folder: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """The job of a run folder after the settings.

    Raises:
        RunNotFound: there is no run in the folder.
        ConfigError: the run was started in Python, or a setting is wrong.
    """
    path = RunFolder.open(Path(folder)).job
    if "made_by" in read_document(path).data:
        raise ConfigError(
            f"expected a run that was started from a job file, {folder} was started in Python. Continue it there: "
            "autoprune.search(the same arguments, resume=True)."
        )
    return load(path, overrides)
