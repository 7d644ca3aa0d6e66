"""Exports as checkpoint folders of transformers, which load without autoprune."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from autoprune.errors import ConfigError, ExportError
from autoprune.pretrained.card import model_card
from autoprune.pretrained.drafts import Draft, drafts
from autoprune.pretrained.folder import import_transformers, local
from autoprune.pretrained.networks import named_inputs, padded_inputs
from autoprune.pretrained.resizing import PREFIX, SECTION, modelling_file, sizes_of
from autoprune.pretrained.tokenizers import load_tokenizer
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

    @property
    def origin(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class TransformersExporter:
    """Writes config.json, model.safetensors, the tokenizer and a model card, for `from_pretrained`.

    A network that its class of transformers can describe with other numbers in config.json, such as a uniform one, is a
    checkpoint of that class. Any other gets a modelling file, which `trust_remote_code=True` runs. Layers of which
    nothing is left are not written.

    Attributes:
        max_shard_size: the size of a file of weights, such as "5GB"; larger weights are written to several files.
        name: the name of the format.
    """

    max_shard_size: str = "5GB"
    name: str = field(default="transformers", init=False)

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
        draft = self._written(network, facts, example, directory, auto)
        _save_tokenizer(facts.dense, directory)
        source = Path(getattr(facts.dense.config, "_name_or_path", "")).name or type(facts.dense).__name__
        card = model_card(source, auto, facts.measured, facts.origin, own_code=not draft.plain)
        (directory / "README.md").write_text(card, encoding="utf-8")

    def _written(
        self, network: nn.Module, facts: Facts, example: Sequence[torch.Tensor], directory: Path, auto: str
    ) -> Draft:
        """Writes the first form of the network that has its outputs when it is loaded again."""
        failure: ExportError | None = None
        for draft in drafts(network, facts.dense, facts.recipe):
            for file in directory.iterdir():  # those of the form that failed
                file.unlink()
            _save(draft, directory, auto, self.max_shard_size)
            try:
                _check(_loaded(type(facts.dense), directory), network, example)
                return draft
            except ExportError as error:
                failure = error
        assert failure is not None
        raise failure


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


def _save(draft: Draft, directory: Path, auto: str, max_shard_size: str) -> None:
    config = copy.deepcopy(draft.config)
    config.dtype = next(draft.network.parameters()).dtype
    if not draft.plain:
        setattr(config, SECTION, sizes_of(draft.network, draft.sizes, draft.skipped))
    draft.network.config = config
    kind: Any = type(draft.network)
    kind.save_pretrained(
        draft.network,
        directory,
        max_shard_size=max_shard_size,
        save_original_format=draft.plain,  # names that transformers turns into its own for its classes alone
    )
    if not draft.plain:
        _add_code(directory, kind, type(config), auto)


def _add_code(directory: Path, base: type[nn.Module], config: type[Any], auto: str) -> None:
    """Writes the modelling file and names it in config.json, whose model type no class of transformers has."""
    model_type = f"autoprune_{config.model_type}"
    (directory / f"{MODELLING}.py").write_text(modelling_file(base, config, model_type), encoding="utf-8")
    written = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    own = {"AutoConfig": f"{MODELLING}.{PREFIX}Config", auto: f"{MODELLING}.{PREFIX}{base.__name__}"}
    written |= {"model_type": model_type, "architectures": [f"{PREFIX}{base.__name__}"], "auto_map": own}
    (directory / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


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


def _check(loaded: nn.Module, network: nn.Module, example: Sequence[torch.Tensor]) -> None:
    """Raises ExportError unless two networks have the same outputs, also for an example whose last token is padding."""
    calls = [inputs for inputs in (tuple(example), padded_inputs(loaded, example)) if inputs is not None]
    outputs = [[_outputs(each, inputs) for inputs in calls] for each in (loaded, network)]
    if not all(
        len(ours) == len(theirs) and all(map(torch.equal, ours, theirs)) for ours, theirs in zip(*outputs, strict=True)
    ):
        raise ExportError(
            "expected the checkpoint to have the network's outputs to the bit, they differ. Export the network in the "
            "format 'autoprune'."
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
