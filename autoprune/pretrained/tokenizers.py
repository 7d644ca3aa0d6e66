"""Tokenizers of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoprune.errors import ConfigError
from autoprune.pretrained.folder import import_transformers, local, read_json, reading

FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")


def load_tokenizer(path: str | Path, *, download: bool = False, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a checkpoint.

    Args:
        path: a folder, or the name of a checkpoint whose files are in the cache of transformers.
        download: fetches files that are not there.
        trust_remote_code: runs Python code of the checkpoint.

    Returns:
        A tokenizer of transformers.

    Raises:
        ConfigError: transformers is not installed, there is no tokenizer, or it has more entries than the
            configuration beside it says that the network has.
    """
    transformers, folder = import_transformers(), local(path)
    if folder is not None and not any((folder / name).is_file() for name in FILES):
        raise ConfigError(
            f"{folder}: expected a tokenizer (tokenizer.json or tokenizer.model), got none. Save it there with "
            "tokenizer.save_pretrained, or name its folder: data.tokenizer."
        )
    with reading(path, "a tokenizer", download=download, trust_remote_code=trust_remote_code):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder or path), local_files_only=not download, trust_remote_code=trust_remote_code
        )
    _check_vocabulary(tokenizer, folder)
    return tokenizer


def _check_vocabulary(tokenizer: Any, folder: Path | None) -> None:
    """Raises ConfigError if a tokenizer has more entries than the network in the same folder."""
    if folder is None or not (folder / "config.json").is_file():
        return
    size = read_json(folder / "config.json").get("vocab_size")
    if isinstance(size, int) and len(tokenizer) > size:
        raise ConfigError(
            f"{folder}: expected a tokenizer of at most the {size:,} tokens that config.json says the network has, got "
            f"one of {len(tokenizer):,}. Take the tokenizer that the network was trained with."
        )
