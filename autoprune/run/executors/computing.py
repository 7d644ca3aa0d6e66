"""Facts on a process that determine its values: versions, sources, settings of torch, hardware.

A worker with other facts than the driver may give other values without raising any error.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from autoprune.measure.scorer import Scorer
from autoprune.plugins import FILE_MODULES

ProcessFacts = Mapping[str, str]

BY_VALUE = ("__main__", "__mp_main__", FILE_MODULES)  # definitions in these modules are pickled by value
COMPARED_BY_VERSION = {"autoprune", "torch", "numpy", *sys.stdlib_module_names}
HASH_DIGITS = 12
VARIABLES = (  # environment variables that choose kernels or precision
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)

_SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "float32 matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "deterministic algorithms": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
}


def torch_settings() -> dict[str, Any]:
    """The settings of torch in this process that change its results."""
    return {name: read() for name, (read, _) in _SETTINGS.items()}


def apply_settings(values: Mapping[str, Any]) -> None:
    """Applies settings that `torch_settings` read in another process."""
    for name, value in values.items():
        _SETTINGS[name][1](value)


def versions() -> dict[str, str]:
    """The versions of Python, of the numerical libraries and of autoprune's own source."""
    own = f"{importlib.import_module('autoprune').__version__} with source {_source_of_autoprune()}"
    return {"Python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "autoprune": own}


def computing(scorer: Scorer) -> dict[str, str]:
    """All facts that determine the values of a scorer in this process, by name."""
    chosen = {f"the variable {name}": os.environ.get(name, "not set") for name in VARIABLES}
    set_here = {f"torch's {name}": str(value) for name, value in torch_settings().items()}
    return {**versions(), **set_here, **chosen, **_sources(scorer)}


def hardware() -> str:
    """The processor and the graphics cards, if there are any."""
    cards = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    return ", ".join([f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})", *sorted(cards)])


def differences(ours: ProcessFacts, theirs: ProcessFacts) -> list[str]:
    """The differences of another process, one clause each. Modules are compared if both processes have loaded them."""
    both = [name for name in ours if name in theirs or not name.startswith("module ")]
    return [
        f"{name} is {ours[name]} here and {theirs.get(name, 'not known')} there"
        for name in both
        if ours[name] != theirs.get(name)
    ]


@functools.cache
def _source_of_autoprune() -> str:
    folder = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:HASH_DIGITS]


def _sources(scorer: Scorer) -> dict[str, str]:
    """A hash of each loaded module in the packages that the model and the user's functions come from."""
    packages = {name.partition(".")[0] for name in _homes(scorer)} - COMPARED_BY_VERSION
    loaded = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in packages}
    found = {f"module {name}": _source_of(module) for name, module in loaded.items()}
    return {name: source for name, source in found.items() if source}


def _homes(scorer: Scorer) -> Iterator[str]:
    """The names of the modules that a process imports again when a scorer is sent to it."""
    used = [type(module) for module in scorer.bank.model.modules()]
    for function in (scorer.fitness, getattr(scorer.training, "loss", None), scorer.bank.weights.scores):
        used += _used_by(function)
    for thing in used:
        name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
        if isinstance(name, str) and not name.startswith(BY_VALUE):
            yield name


def _used_by(function: Any) -> list[Any]:
    """A function or a callable object, and the objects of its module that its code names."""
    while isinstance(function, functools.partial):
        function = function.func
    called = function if hasattr(function, "__code__") else type(function).__call__
    code, around = getattr(called, "__code__", None), getattr(called, "__globals__", {})
    names = code.co_names if code is not None else ()
    return [function, type(function), *(around[name] for name in names if name in around)]


def _source_of(module: ModuleType) -> str:
    path = getattr(module, "__file__", None)
    with contextlib.suppress(OSError):
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:HASH_DIGITS] if path else ""
    return ""


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
