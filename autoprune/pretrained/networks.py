"""Networks of checkpoints, by the automatic classes of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from autoprune.errors import ConfigError, DataError
from autoprune.pretrained.biases import Biases, add_biases
from autoprune.pretrained.folder import check_folder, import_transformers, local, reading

DType = Literal["auto", "float32", "bfloat16", "float16"]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # the order of the inputs in batches


def causal_lm(
    path: str | Path,
    dtype: DType = "auto",
    *,
    biases: Biases = "none",
    download: bool = False,
    trust_remote_code: bool = False,
) -> nn.Module:
    """A language model that predicts the next token, as `AutoModelForCausalLM` reads it; in eval mode.

    The network takes the inputs of a batch by the names in INPUTS, in this order, and keeps no cache of keys and
    values.

    Args:
        path: the folder of the checkpoint, or the name of one whose files are in the cache of transformers.
        dtype: the precision of the parameters; "auto" for that of the checkpoint.
        biases: which layers without a bias get one for what their removed inputs contributed; see `add_biases`.
        download: fetches files that are not there.
        trust_remote_code: runs Python code of the checkpoint.

    Returns:
        The network.

    Raises:
        ConfigError: transformers is not installed, or the checkpoint is missing, incomplete or needs code.
    """
    return add_biases(_loaded("AutoModelForCausalLM", path, dtype, download, trust_remote_code), biases)


def classifier(
    path: str | Path,
    dtype: DType = "auto",
    *,
    biases: Biases = "none",
    download: bool = False,
    trust_remote_code: bool = False,
) -> nn.Module:
    """A classifier of texts, as `AutoModelForSequenceClassification` reads it; see `causal_lm`."""
    return add_biases(_loaded("AutoModelForSequenceClassification", path, dtype, download, trust_remote_code), biases)


def encoder(
    path: str | Path,
    dtype: DType = "auto",
    *,
    biases: Biases = "none",
    download: bool = False,
    trust_remote_code: bool = False,
) -> nn.Module:
    """A network without a head, as `AutoModel` reads it, for fitness `embedding`; see `causal_lm`."""
    return add_biases(_loaded("AutoModel", path, dtype, download, trust_remote_code), biases)


def _loaded(kind: str, path: str | Path, dtype: DType, download: bool, trust_remote_code: bool) -> nn.Module:
    transformers, folder = import_transformers(), local(path)
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ConfigError(f"expected dtype auto, float32, bfloat16 or float16, got {dtype!r}")
    if folder is not None:
        check_folder(folder)
    precision = dtype if dtype == "auto" else getattr(torch, dtype)
    with reading(path, "a network", download=download, trust_remote_code=trust_remote_code), _quiet(transformers):
        network, info = getattr(transformers, kind).from_pretrained(
            str(folder or path),
            dtype=precision,
            local_files_only=not download,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    if missing := sorted(info["missing_keys"]):
        raise ConfigError(
            f"{path}: expected a checkpoint with all weights of {type(network).__name__}, got none for "
            f"{', '.join(missing[:3])}{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}, which would be "
            "random. Load it as the class that it was saved from (model.call)."
        )
    return named_inputs(network.eval())


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Hides the progress bars of transformers, which would stand between the lines of a log."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_vocabulary(network: nn.Module, batches: Iterable[Sequence[torch.Tensor]]) -> None:
    """Checks that a network with named inputs has an embedding for every token.

    Args:
        network: any network.
        batches: its inputs, of which the first are token ids.

    Raises:
        DataError: a token is outside the vocabulary.
    """
    size = getattr(getattr(network, "config", None), "vocab_size", None)
    if not isinstance(size, int) or not _is_named(network):
        return
    largest = max((int(inputs[0].max()) for inputs in batches if not inputs[0].is_floating_point()), default=0)
    if largest >= size:
        raise DataError(
            f"expected tokens of the {size:,} that {type(network).__name__} has, got token {largest:,}. Take the "
            "tokenizer that the network was trained with."
        )


def _is_named(network: nn.Module) -> bool:
    return any(isinstance(hook, NamedInputs) for hook in network._forward_pre_hooks.values())


def named_inputs(network: nn.Module, names: Sequence[str] = INPUTS) -> nn.Module:
    """Makes a network of transformers take positional inputs by name, without a cache of keys and values.

    Networks disagree about the order of their arguments: the second one of GPT-2 is the cache, not the attention mask.

    Args:
        network: the network, which is changed.
        names: the names of the positional inputs.

    Returns:
        The network.
    """
    accepted = inspect.signature(network.forward).parameters
    cached = "use_cache" in accepted or any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    uncached = {"use_cache": False} if cached and hasattr(getattr(network, "config", None), "use_cache") else {}
    network.register_forward_pre_hook(NamedInputs(tuple(names), uncached), with_kwargs=True)
    return network


def padded_inputs(network: nn.Module, example: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...] | None:
    """The inputs of an example whose last token is padding; None for a network without named inputs.

    Attention of transformers runs other code for a batch with padding, which an example without any does not show.
    """
    ids = example[0]
    if not _is_named(network) or ids.dim() != 2 or ids.shape[1] < 2:
        return None
    mask = torch.ones_like(ids)
    mask[:, -1] = 0
    return (ids, mask, *example[2:])


@dataclass(frozen=True)
class NamedInputs:
    """A forward pre-hook that passes positional inputs by name."""

    names: tuple[str, ...]
    also: dict[str, Any]

    def __call__(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return (), {**self.also, **dict(zip(self.names, args, strict=False)), **kwargs}
