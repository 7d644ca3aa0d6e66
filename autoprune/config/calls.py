"""Parts of a job that name code: a plug-in with its keyword arguments, or a built-in by its name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from autoprune.config.document import Document, KeyPath
from autoprune.config.explain import expected, shown_value
from autoprune.core.contracts import Searcher
from autoprune.core.cost import FACTORY_ARGUMENTS, is_factory
from autoprune.core.problem import Problem
from autoprune.errors import PluginError, did_you_mean
from autoprune.plugins import Plugin, absolute_name, find_path, load_plugin, misfits
from autoprune.prune.bank.masks import MASKS
from autoprune.prune.criteria import CRITERIA
from autoprune.run.session.job import NamedSearcher
from autoprune.searchers import SEARCHERS
from autoprune.train.finetune import LOSSES
from autoprune.train.recovery.options import AUGMENTATIONS, PARTS, RECOVERY_LOSSES


@dataclass(frozen=True)
class Context:
    """What belongs to the data of a job: the places of keys, the folders of files, and remarks on how it was read."""

    document: Document = field(default_factory=lambda: Document({}, {(): "job"}))
    folders: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()

    @staticmethod
    def of(info: ValidationInfo) -> Context:
        return info.context if isinstance(info.context, Context) else Context()


def mistakes(*pairs: tuple[KeyPath, str]) -> PydanticCustomError:
    """One validation error that carries several sentences, each about a key below the present value."""
    return PydanticCustomError("mistakes", "{text}", {"text": "; ".join(s for _, s in pairs), "mistakes": list(pairs)})


class _Code(BaseModel):
    """Common to calls and choices.

    `given` names the positional arguments that the code receives, `always` the keyword arguments besides the user's.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    given: ClassVar[tuple[str, ...]] = ()
    always: ClassVar[tuple[str, ...]] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The user's keyword arguments."""
        return dict(self.model_extra or {})

    @classmethod
    def _settled(cls, data: Mapping[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """A call checked against its plug-in's signature, with absolute paths, so that it is valid from any folder."""
        folders = Context.of(info).folders
        try:
            name = absolute_name(data["call"], folders)
            plugin = load_plugin(name)
        except PluginError as error:
            raise mistakes((("call",), str(error))) from error
        options = {key: value for key, value in data.items() if key != "call"}
        cls._hold(plugin, options, data["call"])
        return {"call": name, **{key: _settled_path(key, value, plugin, folders) for key, value in options.items()}}

    @classmethod
    def _hold(cls, plugin: Plugin, options: Iterable[str], name: str) -> None:
        """Raises unless the plug-in accepts `given`, `always` and the options."""
        pairs = misfits(plugin, cls._given_to(plugin), cls.always, list(options))
        if pairs:
            raise mistakes(*(((key,) if key else (), f"{sentence} (of {name})") for key, sentence in pairs))

    @classmethod
    def _given_to(cls, plugin: Plugin) -> tuple[str, ...]:
        """The positional arguments that a plug-in will get."""
        return cls.given


class Call(_Code):
    """A plug-in and the keyword arguments to call it with: {call: "pkg.mod:name", option: 1}.

    Validated by importing it and checking the arguments against its signature.
    """

    call: str

    @model_validator(mode="before")
    @classmethod
    def _check(cls, data: Any, info: ValidationInfo) -> Any:
        named = isinstance(data, dict) and isinstance(data.get("call"), str)
        return cls._settled(data, info) if named else data

    def bound(self) -> Plugin:
        """The plug-in with its keyword arguments bound."""
        return _bound(self.call, self.options)


class FitnessCall(Call):
    """A call of (model, batches) -> float or {name: float}."""

    given = ("model", "batches")


class CostCall(Call):
    """A call of (kept counts by unit name) -> float."""

    given = ("kept",)

    @classmethod
    def _given_to(cls, plugin: Plugin) -> tuple[str, ...]:
        return FACTORY_ARGUMENTS if is_factory(plugin) else cls.given


class TrackerCall(Call):
    """() -> Tracker."""


class _Choice(_Code):
    """A built-in by its name or a plug-in: "obs", {name: evolution, population: 20}, {call: ...}."""

    builtins: ClassVar[Mapping[str, Any]] = {}

    name: str | None = None
    call: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _check(cls, data: Any, info: ValidationInfo) -> Any:
        data = {"name": data} if isinstance(data, str) else data
        if not isinstance(data, dict):
            return data
        if ("name" in data) == ("call" in data):
            raise mistakes(((), f"expected either a name, one of {', '.join(cls.builtins)}, or a call; got {data}"))
        if isinstance(data.get("call"), str):
            return cls._settled(data, info)
        if isinstance(data.get("name"), str):
            cls._check_builtin(data["name"], {key: value for key, value in data.items() if key != "name"})
        return data

    @classmethod
    def _check_builtin(cls, name: str, options: Mapping[str, Any]) -> None:
        if name not in cls.builtins:
            known, hint = ", ".join(cls.builtins), did_you_mean(name, cls.builtins)
            raise mistakes(((), f"expected one of {known} or {{call: ...}}, got {name!r}{hint}"))


class _FunctionChoice(_Choice):
    """A built-in function by its name, which takes no options, or a plug-in."""

    noun: ClassVar[str]

    @classmethod
    def _check_builtin(cls, name: str, options: Mapping[str, Any]) -> None:
        super()._check_builtin(name, options)
        if options:
            raise mistakes(*(((key,), f"unknown argument {key!r}; {cls.noun} {name} takes none") for key in options))

    def resolve(self) -> str | Plugin:
        """The name of a built-in, or the plug-in with its options bound."""
        return _bound(self.call, self.options) if self.call else str(self.name)


class CriterionChoice(_FunctionChoice):
    """A function of (weights, statistics) -> scores."""

    builtins = CRITERIA
    given = ("weights", "statistics")
    noun = "the criterion"


class MaskChoice(_FunctionChoice):
    """A function of (weight, moments) -> scores."""

    builtins = MASKS
    given = ("weight", "moments")
    noun = "the mask rule"


class LossChoice(_FunctionChoice):
    """A function of (output, batch) -> scalar tensor."""

    builtins = LOSSES
    given = ("output", "batch")
    noun = "the loss"


class RecoveryLossChoice(_FunctionChoice):
    """A function of (output, batch) -> scalar tensor."""

    builtins: ClassVar[Mapping[str, Any]] = dict.fromkeys(RECOVERY_LOSSES)
    given = ("output", "batch")
    noun = "the loss"


class TrainChoice(_FunctionChoice):
    """A function of (network, dense, batches, options) -> network or None."""

    builtins: ClassVar[Mapping[str, Any]] = dict.fromkeys(PARTS)
    given = ("network", "dense", "batches", "options")
    noun = "the part"


class AugmentChoice(_FunctionChoice):
    """A function of (batch) -> batch."""

    builtins: ClassVar[Mapping[str, Any]] = dict.fromkeys(AUGMENTATIONS)
    given = ("batch",)
    noun = "the augmentation"


class SearcherChoice(_Choice):
    """A function of (problem, seed=...) -> Searcher."""

    builtins = SEARCHERS
    given = ("problem",)
    always = ("seed",)

    @classmethod
    def _check_builtin(cls, name: str, options: Mapping[str, Any]) -> None:
        super()._check_builtin(name, options)
        kind = load_plugin(SEARCHERS[name])
        cls._hold(kind, options, f"the searcher {name}")
        wrong = list(_wrong_kinds(kind, options))
        if wrong:
            raise mistakes(*wrong)

    def resolve(self) -> Callable[[Problem, int], Searcher]:
        """A picklable function of (problem, seed) that makes the searcher."""
        return NamedSearcher(str(self.call or SEARCHERS[str(self.name)]), self.options)


def _wrong_kinds(kind: Plugin, options: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """The options whose values contradict their annotations."""
    parameters = inspect.signature(kind, eval_str=True).parameters
    for key, value in options.items():
        try:
            TypeAdapter(parameters[key].annotation, config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place: KeyPath = (key, *(part for part in first["loc"] if isinstance(part, int)))
            yield place, f"expected {expected(first)}, got {shown_value(first['input'])}"


def _bound(name: str, options: Mapping[str, Any]) -> Plugin:
    plugin = load_plugin(name)
    return functools.partial(plugin, **options) if options else plugin


def _settled_path(key: str, value: Any, plugin: Plugin, folders: Sequence[Path]) -> Any:
    """An existing path made absolute, if the text is meant as a path; else the value unchanged.

    A text is meant as a path if it has a separator, or the plug-in annotates the argument with Path; a word such as
    `train` is none merely because a folder has that name.
    """
    if not isinstance(value, str) or not ("/" in value or _annotated_path(plugin, key)):
        return value
    found = find_path(value, folders)
    return value if found is None else str(found)


def _annotated_path(plugin: Plugin, key: str) -> bool:
    try:
        parameter = inspect.signature(plugin).parameters.get(key)
    except ValueError:
        return False
    return parameter is not None and "Path" in str(parameter.annotation)
