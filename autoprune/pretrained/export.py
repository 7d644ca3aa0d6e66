"""Exports as checkpoint folders of transformers, which load without autoprune."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from autoprune.errors import ConfigError, ExportError
from autoprune.pretrained.folder import import_transformers, local
from autoprune.pretrained.networks import named_inputs, padded_inputs
from autoprune.pretrained.resizing import PREFIX, SECTION, keep_buffers, modelling_file, sizes_of
from autoprune.pretrained.tokenizers import load_tokenizer
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.surgery.surgery import Recipe

MODELLING = "modeling_autoprune"  # the name of the modelling file, without .py
AUTO = ("AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoModelForMaskedLM", "AutoModel")

_log = logging.getLogger(__name__)


class Facts(Protocol):
    """What is known of a network that is exported; see run.results.exporter.ExportFacts."""

    @property
    def dense(self) -> nn.Module: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def measured(self) -> Mapping[str, Any]: ...


class TransformersExporter:
    """Writes config.json, model.safetensors, the tokenizer and a model card, for `from_pretrained`.

    A network that its class of transformers can describe with other numbers in config.json, such as a uniform one, is a
    checkpoint of that class. Any other gets a modelling file, which `trust_remote_code=True` runs.
    """

    name = "transformers"

    def write(self, network: nn.Module, facts: Facts, example: Sequence[torch.Tensor], directory: Path) -> None:
        """Writes the folder, loads it again and compares the outputs, which are the same to the bit.

        Raises:
            ExportError: the network is no class of transformers, or the loaded one has other outputs.
        """
        auto = _auto_class(import_transformers(), facts.dense)
        if facts.recipe.adapted:
            raise ExportError(
                f"expected a network that torch and transformers can run alone, got adapters in "
                f"{', '.join(facts.recipe.adapted[:3])}. Export it in the format 'autoprune'."
            )
        plain = _plain_config(network, facts)
        _save(network, facts, directory, plain, auto)
        loaded = _loaded(type(facts.dense), directory)
        if plain is not None and not _same_outputs(loaded, network, example):
            plain = None
            for file in directory.iterdir():
                file.unlink()
            _save(network, facts, directory, None, auto)
            loaded = _loaded(type(facts.dense), directory)
        if not _same_outputs(loaded, network, example):
            raise ExportError(
                "expected the checkpoint to have the network's outputs to the bit, they differ. Export the network in "
                "the format 'autoprune'."
            )
        _save_tokenizer(facts.dense, directory)
        (directory / "README.md").write_text(_card(facts, auto, own_code=plain is None), encoding="utf-8")


def _auto_class(transformers: Any, network: nn.Module) -> str:
    """The automatic class that reads networks of this class."""
    for name in AUTO:
        mapping = getattr(transformers, name)._model_mapping
        config = type(getattr(network, "config", None))
        if config in mapping and mapping[config] is type(network):
            return name
    raise ExportError(
        f"expected a network of a class of transformers that {', '.join(AUTO)} read, got a {type(network).__name__}. "
        "Export it in the format 'autoprune'."
    )


def _plain_config(network: nn.Module, facts: Facts) -> Any:
    """A configuration with which the network's class has all of its tensors; None if there is none."""
    config = copy.deepcopy(facts.dense.config)
    for name, value in _uniform_sizes(network, facts.recipe).items():
        if hasattr(config, name):
            setattr(config, name, value)
    try:
        with torch.device("meta"):
            plain = type(facts.dense)(config)
    except Exception:  # a class may raise anything for sizes that do not fit each other
        return None
    return config if sizes_of(plain, {}, {}) == sizes_of(network, {}, {}) else None


def _uniform_sizes(network: nn.Module, recipe: Recipe) -> dict[str, int]:
    """The sizes that all layers share, by their names in configurations."""
    found: dict[str, set[int]] = {}
    for attributes in recipe.sizes.values():
        for path, value in attributes.items():
            found.setdefault(path.rpartition(".")[2], set()).add(value)
    for module in network.modules():
        for name, projection in (("num_attention_heads", "q_proj"), ("num_key_value_heads", "k_proj")):
            if hasattr(module, "head_dim") and isinstance(getattr(module, projection, None), nn.Linear):
                found.setdefault(name, set()).add(getattr(module, projection).out_features // module.head_dim)
    return {name: min(values) for name, values in found.items() if len(values) == 1}


def _save(network: nn.Module, facts: Facts, directory: Path, plain: Any, auto: str) -> None:
    small: Any = copy_model(network)
    config = plain if plain is not None else copy.deepcopy(facts.dense.config)
    config.dtype = next(network.parameters()).dtype
    if plain is None:
        for name in _resized_buffers(network, facts.dense):
            keep_buffers(small.get_submodule(name.rpartition(".")[0]))
        setattr(config, SECTION, sizes_of(network, facts.recipe.sizes, facts.recipe.skipped))
    small.config = config
    small.save_pretrained(directory)
    if plain is None:
        _add_code(directory, type(facts.dense), type(config), auto)


def _add_code(directory: Path, base: type[nn.Module], config: type[Any], auto: str) -> None:
    """Writes the modelling file and names it in config.json, whose model type no class of transformers has."""
    model_type = f"autoprune_{config.model_type}"
    (directory / f"{MODELLING}.py").write_text(modelling_file(base, config, model_type), encoding="utf-8")
    written = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    own = {"AutoConfig": f"{MODELLING}.{PREFIX}Config", auto: f"{MODELLING}.{PREFIX}{base.__name__}"}
    written |= {"model_type": model_type, "architectures": [f"{PREFIX}{base.__name__}"], "auto_map": own}
    (directory / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _resized_buffers(network: nn.Module, dense: nn.Module) -> list[str]:
    """The buffers that have another shape than in the dense network."""
    own = dict(dense.named_buffers())
    return [name for name, buffer in network.named_buffers() if own[name].shape != buffer.shape]


def _loaded(base: type[nn.Module], directory: Path) -> nn.Module:
    """The network in the folder, read by its class: that of the modelling file, or the class of transformers."""
    try:
        kind: Any = _own_class(base, directory) if (directory / f"{MODELLING}.py").exists() else base
        return named_inputs(kind.from_pretrained(str(directory), local_files_only=True).eval())
    except Exception as error:  # transformers may raise anything
        raise ExportError(
            f"the checkpoint cannot be loaded: {type(error).__name__}: {error}. Export the network in the format "
            "'autoprune'."
        ) from error


def _own_class(base: type[nn.Module], directory: Path) -> Any:
    spec = importlib.util.spec_from_file_location(MODELLING, directory / f"{MODELLING}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, f"{PREFIX}{base.__name__}")


def _same_outputs(loaded: nn.Module, network: nn.Module, example: Sequence[torch.Tensor]) -> bool:
    """Whether two networks have the same outputs, also for an example whose last token is padding."""
    calls = [inputs for inputs in (tuple(example), padded_inputs(loaded, example)) if inputs is not None]
    outputs = [[_outputs(each, inputs) for inputs in calls] for each in (loaded, network)]
    return all(
        len(ours) == len(theirs) and all(map(torch.equal, ours, theirs)) for ours, theirs in zip(*outputs, strict=True)
    )


def _outputs(network: nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    device = next(network.parameters()).device
    with torch.no_grad():
        return [tensor.cpu() for tensor in tensors_of(network(*(x.clone().to(device) for x in inputs)))]


def _save_tokenizer(dense: nn.Module, directory: Path) -> None:
    """Copies the tokenizer of the checkpoint that the dense network came from, if there is one."""
    source = getattr(dense.config, "_name_or_path", "")
    if local(source) is None or not source:
        _log.warning("the checkpoint has no tokenizer: the network does not come from a folder")
        return
    try:
        load_tokenizer(source).save_pretrained(directory)
    except ConfigError as error:
        _log.warning("the checkpoint has no tokenizer: %s", error)


def _card(facts: Facts, auto: str, *, own_code: bool) -> str:
    """The model card: where the network comes from, its measurements, and how it is loaded."""
    source = Path(getattr(facts.dense.config, "_name_or_path", "")).name or type(facts.dense).__name__
    numbers = {name: value for name, value in facts.measured.items() if isinstance(value, int | float)}
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in numbers.items())
    trust = ", trust_remote_code=True" if own_code else ""
    return f"""---
library_name: transformers
tags: [pruned]
---

# {source}, pruned

Made from {source} by autoprune: layers are smaller, and weights are fitted to the original network's outputs.

| | |
|---|---|
{rows}

```python
from transformers import {auto}

model = {auto}.from_pretrained("FOLDER"{trust})
```
"""
