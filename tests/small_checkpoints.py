"""Writes small checkpoints of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def saved(network: Any, tokenizer: Any, folder: Path) -> Path:
    """The folder, with the network and the tokenizer in it."""
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
