"""Keys of a job file that have a new name: the old one is still read, with a remark that names the new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autoprune.config.document import Document, dotted_key

RENAMED: Mapping[tuple[str, str], str] = {("search", "norm_images"): "batch_norm_examples"}


def with_new_names(document: Document) -> tuple[Document, list[str], list[str]]:
    """The document with its old keys under their new names.

    A setting (--set) overrides the file, whichever of the two keys each of them has.

    Returns:
        The document, a sentence for each key that is there under both names, and a remark for each old key.
    """
    problems: list[str] = []
    remarks: list[str] = []
    for path, name in RENAMED.items():
        section, old = path
        around = document.data.get(section)
        if not isinstance(around, Mapping) or old not in around:
            continue
        new = (section, name)
        both = name in around
        winner = new if both and document.place(new).startswith("--set") else path
        if both and winner == path and not document.place(path).startswith("--set"):
            problems.append(
                document.problem(path, f"expected this key or {dotted_key(new)}, got both. Remove this one.")
            )
        remarks.append(f"{document.place(path)}: {dotted_key(path)} is now called {dotted_key(new)}")
        renamed = {**{key: value for key, value in around.items() if key != old}, name: around[winner[1]]}
        places = {**document.places, new: document.place(winner)}
        document = replace(document, data={**document.data, section: renamed}, places=places)
    return document, problems, remarks
