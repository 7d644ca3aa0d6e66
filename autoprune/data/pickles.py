"""Reads the python batches of CIFAR-10, pickles from the internet, without executing any of their code."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.errors import DataError


def read_python_batch(path: Path) -> tuple[np.ndarray, list[Any]]:
    """(n, 32, 32, 3) uint8 images and n labels of one batch file of the original distribution.

    Raises:
        DataError: the file is malformed, or asks for anything but plain values and numpy arrays.
    """
    content = _load(path)
    data, labels = (content.get(key) for key in ("data", "labels")) if isinstance(content, dict) else (None, None)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        got = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{path}: expected 'data' as an uint8 array of shape (n, 3072), got {got}")
    if not isinstance(labels, list):
        raise DataError(
            f"{path}: expected 'labels' as a list, got {type(labels).__name__}. CIFAR-100 is not read here."
        )
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _load(path: Path) -> object:
    try:
        # arrays pickled by Python 2 need latin1, which also turns their keys into str
        return _Restricted(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged stream can raise any exception, as pickle documents
        raise DataError(
            f"{path}: expected a python batch of CIFAR-10, got a file that cannot be read ({error})"
        ) from error


def _dtype(name: str, align: int = 0, copy: int = 0) -> np.dtype[Any]:
    """A dtype; Python 2 wrote its flags as integers, about which numpy warns."""
    return np.dtype(name, align=bool(align), copy=bool(copy))


# the functions that numpy pickles arrays with, which have no public name (Any: typed as str or callable)
_reconstruct: Any = np.empty(0).__reduce__()[0]
_frombuffer: Any = np.empty(0).__reduce_ex__(5)[0]

_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # numpy 1, Python 2
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,  # pickle protocol 5
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ADMITTED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None
