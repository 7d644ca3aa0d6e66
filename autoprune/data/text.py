"""Reads texts with a tokenizer: one long text for a language model, or examples of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.data.padding import from_dict, without_padding
from autoprune.data.sets import Data, sets_of
from autoprune.data.tokens import SequencePlan
from autoprune.errors import DataError
from autoprune.measure.batch import Batch
from autoprune.pretrained.datasets import is_dataset, read_columns
from autoprune.pretrained.tokenizers import load_tokenizer

Paths = str | Path | Sequence[str | Path]


def text(
    text: Paths,
    tokenizer: str | Path,
    length: int = 512,
    calibrate: int = 128,
    select: int = 128,
    report: int = 128,
    batch_size: int = 8,
    seed: int = 0,
    separator: str | None = None,
    column: str = "text",
    split: str | None = None,
    download: bool = False,
    trust_remote_code: bool = False,
) -> Data:
    """Documents as sequences of tokens of one length, for a language model.

    The tokens of all documents, each with the special tokens that the tokenizer adds, are joined and cut into
    sequences, so that nothing is padded. The report set is the end of the text; the other sets are drawn from the rest,
    whose remainder is `train`.

    Args:
        text: a UTF-8 file, several, a folder of .txt files in the order of their names, or a data set of the package
            datasets on disk.
        tokenizer: the folder of the tokenizer, or the name of a checkpoint in the cache of transformers.
        length: the number of tokens in a sequence.
        calibrate: the number of calibration sequences.
        select: the number of selection sequences.
        report: the number of report sequences.
        batch_size: sequences per batch.
        seed: decides which sequence belongs to which set.
        separator: the text between two documents of a file, such as "\\n\\n"; None for one document per file.
        column: the column of a data set that holds the documents, as text or as token ids.
        split: the split of a data set that has several.
        download: fetches files of the tokenizer that are not there.
        trust_remote_code: runs Python code of the tokenizer's checkpoint.

    Returns:
        The sets of a search.

    Raises:
        DataError: a file cannot be read, or the text is too short.
        ConfigError: the tokenizer cannot be read.
    """
    plan = SequencePlan(length, calibrate, select, report, batch_size, seed)
    documents, where = _documents(text, separator, column, split)
    coder = load_tokenizer(tokenizer, download=download, trust_remote_code=trust_remote_code)
    ids = [np.asarray(_coded(coder, document), np.int64) for document in documents]
    joined = np.concatenate(ids) if ids else np.zeros(0, np.int64)
    return sets_of(joined, plan, where, {"reader": "text", "separator": separator, "documents": len(ids)})


def sentences(
    text: Paths,
    tokenizer: str | Path,
    length: int = 128,
    calibrate: int = 500,
    select: int = 500,
    report: int = 500,
    batch_size: int = 50,
    seed: int = 0,
    column: str = "text",
    label: str | None = None,
    split: str | None = None,
    download: bool = False,
    trust_remote_code: bool = False,
) -> Data:
    """Lines of text files, or rows of a data set, as examples of their own, for encoders and classifiers.

    Inputs are `input_ids` and `attention_mask`, padded to the longest example of all. The padding counts in no
    statistics and no fit, and its labels are -100. Without a column of labels the targets are the tokens themselves.

    Args:
        text: see `text`; in files, each line that is not blank is an example.
        tokenizer: see `text`.
        length: the largest number of tokens of an example; longer ones lose their end.
        calibrate: the number of calibration examples.
        select: the number of selection examples.
        report: the number of report examples.
        batch_size: examples per batch.
        seed: decides which example belongs to which set.
        column: the column of a data set that holds the texts.
        label: the column of a data set that holds class indices; None for none.
        split: see `text`.
        download: see `text`.
        trust_remote_code: see `text`.

    Returns:
        The sets of a search.

    Raises:
        DataError: a file cannot be read, there are too few examples, or the tokenizer has no padding token.
        ConfigError: the tokenizer cannot be read.
    """
    plan = SequencePlan(length, calibrate, select, report, batch_size, seed)
    rows, where = _documents(text, "\n", column, split)
    labels = _labels(text, label, split)
    indices = plan.divided(len(rows), where)
    coder = load_tokenizer(tokenizer, download=download, trust_remote_code=trust_remote_code)
    if coder.pad_token is None:
        raise DataError(
            f"{tokenizer}: expected a tokenizer with a padding token, as examples have different lengths, got none. "
            "Set its pad_token and save it, or read one long text with autoprune.data:text."
        )
    coded = coder(list(map(str, rows)), padding=True, truncation=True, max_length=length, return_tensors="pt")

    def batches(name: str, *, labelled: bool = True) -> Iterator[Batch]:
        for start in range(0, len(indices[name]), batch_size):
            chosen = indices[name][start : start + batch_size]
            item = {key: coded[key][chosen] for key in ("input_ids", "attention_mask")}
            given = {} if labels is None else {"labels": labels[chosen]}
            yield from_dict(item | given, name, labelled=labelled)

    recorded = {name: indices[name].tolist() for name in ("calibrate", "select", "report")}
    return Data(
        tuple(cut for batch in batches("calibrate", labelled=False) for cut in without_padding(batch)),
        tuple(batches("select")),
        tuple(batches("report")),
        tuple(batches("train")) if len(indices["train"]) else None,
        {"reader": "sentences", "length": length, "seed": seed, "indices": recorded},
    )


def _coded(tokenizer: Any, document: Any) -> Any:
    """The token ids of a document, which may be given as ids already."""
    return tokenizer(document, verbose=False)["input_ids"] if isinstance(document, str) else document


def _labels(text: Paths, column: str | None, split: str | None) -> torch.Tensor | None:
    if column is None:
        return None
    folder = Path(text).expanduser() if isinstance(text, str | Path) else None
    if folder is None or not is_dataset(folder):
        raise DataError(f"expected a data set on disk for the labels in column {column!r}, got {text}")
    return torch.tensor(read_columns(folder, [column], split)[0])


def _documents(given: Paths, separator: str | None, column: str, split: str | None) -> tuple[list[Any], str]:
    """The documents that are not empty, and a name of their place for messages."""
    paths = [Path(path).expanduser() for path in ([given] if isinstance(given, str | Path) else given)]
    where = ", ".join(map(str, paths[:3]))
    if len(paths) == 1 and is_dataset(paths[0]):
        return [document for document in read_columns(paths[0], [column], split)[0] if len(document)], where
    documents = [part for file in _files(paths) for part in _parts(_content(file), separator)]
    return [document for document in documents if document.strip()], where


def _files(paths: Sequence[Path]) -> list[Path]:
    files = [file for path in paths for file in (sorted(path.glob("*.txt")) if path.is_dir() else [path])]
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        raise DataError(
            "expected text files, a folder of .txt files, or a data set that the package datasets has saved, got "
            f"{', '.join(missing or map(str, paths))}, where there is none. Check the path."
        )
    return files


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected a readable UTF-8 text file: {error}") from error


def _parts(content: str, separator: str | None) -> list[str]:
    return content.split(separator) if separator else [content]
