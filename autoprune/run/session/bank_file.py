"""Banks on disk: orders and second moments with a checksum, under a key of everything that determines them.

The consumers' weights are not in the file: they are solved from the moments, to the same bits, for the combinations of
counts that are needed, as all combinations would take more space. Second moments are symmetric, so only their lower
triangles are written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from autoprune.errors import BankError
from autoprune.prune.bank.channels import Bank
from autoprune.prune.moments.consumers import find_consumers
from autoprune.prune.moments.moments import Moments
from autoprune.prune.structure.structure import Structure
from autoprune.run.fingerprint.fingerprint import fingerprint
from autoprune.run.records.tensor_file import write_tensors

BANK_FORMAT = 3  # increased whenever the same inputs give a different bank
HEADER = "autoprune"


def save_bank(bank: Bank, path: Path, key: str) -> None:
    """Writes a bank atomically. OSError, with the file's name, if it cannot be written."""
    tensors = {f"order/{unit}": torch.from_numpy(order.astype(np.int64)) for unit, order in bank.orders.items()}
    facts = {}
    owners: dict[int, str] = {}  # the name under which a tensor of second moments is, as weights may share it
    for name, moments in bank.moments.items():
        owner = owners.setdefault(id(moments.stored), name)
        tensors |= _packed(name, moments, with_gram=owner == name)
        facts[name] = {key: getattr(moments, key) for key in ("centred", "rows", "seen", "form", "ridge")}
        facts[name] |= {"constants": list(moments.constants), "size": moments.stored.shape[1], "gram": owner}
    header = {
        "format": BANK_FORMAT,
        "key": key,
        "units": list(bank.orders),
        "moments": facts,
        "sliced": dict(bank.sliced),
        "notes": dict(bank.notes),
    }
    text = json.dumps(header)
    write_tensors(path, tensors, {HEADER: f"{_digest(text, tensors)} {text}"})  # one entry: the order of several varies


def load_bank(path: Path, key: str, model: nn.Module, structure: Structure) -> Bank:
    """Reads a bank for the model and structure that it was made from.

    Raises:
        BankError: the file is damaged, of another format, or has another key.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # the file is not a mapping
    except OSError as error:
        raise BankError(f"{path}: the bank cannot be read: {error.strerror or error}. It is made again.") from error
    except (SafetensorError, ValueError) as error:
        raise BankError(f"{path}: the bank is damaged: {error}. It is made again.") from error
    checksum, _, text = metadata.get(HEADER, "").partition(" ")
    if checksum != _digest(text, tensors):
        raise BankError(f"{path}: the bank is damaged: its content does not have its checksum. It is made again.")
    header = json.loads(text)
    if header["format"] != BANK_FORMAT or header["key"] != key:
        raise BankError(f"{path}: the bank is from another model, data, criterion or version. It is made again.")
    consumers, _ = find_consumers(model, structure, list(header["moments"]))
    moments: dict[str, Moments] = {}
    for name, facts in header["moments"].items():
        owner = facts["gram"]
        gram = moments[owner].stored if owner in moments else _unpacked(tensors[f"gram/{owner}"], facts["size"])
        constants = {bias: tensors[f"constant/{name}/{bias}"] for bias in facts["constants"]}
        moments[name] = Moments(
            consumers[name].design,
            facts["form"],
            gram,
            tensors[f"mean/{name}"],
            facts["centred"],
            facts["rows"],
            constants,
            facts["seen"],
            facts["ridge"],
        )
    orders = {unit: tensors[f"order/{unit}"].numpy() for unit in header["units"]}
    return Bank(model, structure, orders, moments, header["sliced"], header["notes"])


def bank_key(facts: Mapping[str, Any], structure: Structure, criterion: str | Callable[..., Any]) -> str:
    """The sha256 of everything that determines a bank: facts on model, data and software, the units, the criterion.

    A user's criterion is identified by its options, its source and the code that it uses.
    """
    content = {
        "format": BANK_FORMAT,
        "facts": dict(facts),
        "units": [unit.to_json() for unit in structure.units],
        "criterion": criterion if isinstance(criterion, str) else fingerprint(criterion),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def _packed(name: str, moments: Moments, with_gram: bool) -> dict[str, torch.Tensor]:
    rows, columns = torch.tril_indices(*moments.stored.shape[1:])
    means = {f"constant/{name}/{bias}": mean.contiguous().clone() for bias, mean in moments.constants.items()}
    gram = {f"gram/{name}": moments.stored[:, rows, columns]} if with_gram else {}
    return {**gram, f"mean/{name}": moments.mean.contiguous().clone(), **means}


def _unpacked(triangles: torch.Tensor, size: int) -> torch.Tensor:
    """(g, d, d) symmetric matrices from (g, d * (d + 1) / 2) lower triangles."""
    rows, columns = torch.tril_indices(size, size)
    gram = torch.zeros(len(triangles), size, size, dtype=triangles.dtype)
    gram[:, rows, columns] = triangles
    gram[:, columns, rows] = triangles
    return gram


def _digest(header: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
