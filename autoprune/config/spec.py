"""The content of a job file as frozen models, and the job that they resolve to."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from autoprune.config.calls import (
    AugmentChoice,
    Call,
    Context,
    CostCall,
    CriterionChoice,
    FitnessCall,
    LossChoice,
    MaskChoice,
    RecoveryLossChoice,
    SearcherChoice,
    TrackerCall,
    TrainChoice,
    mistakes,
)
from autoprune.config.document import KeyPath
from autoprune.config.options import resolved_options, with_options
from autoprune.core.levels import FLOOR, GRIDS, LevelRule
from autoprune.core.objective import KNOWN_DIRECTIONS, NAMED, Direction, Objective, is_name
from autoprune.core.sparse import SPARSE_COSTS
from autoprune.core.unit import KINDS, Kind
from autoprune.errors import ConfigError
from autoprune.measure.fitness import reported_names
from autoprune.measure.form import Form, Layout, Precision
from autoprune.measure.settings import GIB, MOST_GIB, Scoring
from autoprune.run.session.job import CompensationName, Executor, Job, Stop, parse_target
from autoprune.run.session.limits import MOST_EVALUATIONS, MOST_SEED, MOST_THREADS, MOST_WORKERS
from autoprune.run.session.names import unknown_names
from autoprune.train.finetune import FineTune
from autoprune.train.recovery.options import Recovery

MOST_LEVELS = 10_000  # largest number of levels of one unit
MOST_WIDTH = 1_000_000  # largest number of positions of a layer

Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RuleSpec(_Section):
    """A rule for the levels of units that match a name pattern, given by one of `keep`, `levels`, `grid` and `skip`."""

    match: str = Field(min_length=1, description="a pattern of unit names: * ? [abc]", examples=["layer*"])
    kind: Kind | None = Field(None, description=f"only units of this kind: {', '.join(KINDS)}", examples=["channels"])
    keep: tuple[Share, ...] | None = Field(
        None,
        strict=False,
        min_length=1,
        max_length=MOST_LEVELS,
        description="shares of the width to choose from; 0 removes a branch",
        examples=["[0.75, 0.5]"],
    )
    levels: int | None = Field(
        None, ge=2, le=MOST_LEVELS, description="number of levels in equal steps, including dense", examples=[8]
    )
    grid: Literal["percent", "spdy"] | None = Field(
        None, description="a named list of shares: percent or spdy", examples=["percent"]
    )
    group: int | None = Field(
        None,
        ge=2,
        le=MOST_WIDTH,
        description="M of an N:M pattern, the number of consecutive inputs in a group",
        examples=[4],
    )
    min_share: float | None = Field(
        None, gt=0, lt=1, description="share that the smallest level keeps", examples=[0.125]
    )
    round_to: int = Field(1, ge=1, le=MOST_WIDTH, description="kept counts are multiples of this", examples=[8])
    min_keep: float | None = Field(
        None, gt=0, le=MOST_WIDTH, description="least kept count; below 1, least kept share", examples=[4]
    )
    floor: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="least share of entries that every weight keeps, at least one per output; 0 allows empty weights",
        examples=[0.0005],
    )
    skip: bool = Field(False, description="leave these units dense", examples=["true"])

    @model_validator(mode="after")
    def _one_way(self) -> RuleSpec:
        ways = [name for name in ("keep", "levels", "grid", "skip") if getattr(self, name)]
        if len(ways) != 1:
            got = " and ".join(ways) or "none of them"
            raise mistakes(
                ((), f"expected one of keep, levels, grid and skip, got {got}. Write for example `levels: 8`.")
            )
        if self.min_share is not None and not self.levels:
            raise mistakes((("min_share",), f"expected it beside levels only, got it beside {ways[0]}. Remove it."))
        if self.group is not None and self.kind != "pattern":
            raise mistakes(
                (("group",), f"expected it beside `kind: pattern` only, the kind is {self.kind}. Remove it.")
            )
        if self.floor is not None and self.kind != "weights":
            raise mistakes(
                (("floor",), f"expected it beside `kind: weights` only, the kind is {self.kind}. Remove it.")
            )
        if self.min_keep is not None and self.min_keep > 1 and not self.min_keep.is_integer():
            raise mistakes(
                (("min_keep",), f"expected a whole number of positions or a share below 1, got {self.min_keep:g}.")
            )
        return self

    def shares(self) -> tuple[float, ...]:
        """The shares of the width to choose from, largest first for equal steps; empty to keep it dense."""
        if self.levels is None:
            return GRIDS[self.grid] if self.grid else self.keep or ()
        least = 0.125 if self.min_share is None else self.min_share
        return tuple(1 - index * (1 - least) / (self.levels - 1) for index in range(self.levels))

    def resolve(self, source: str) -> LevelRule:
        """The level rule; `source` says where it is written."""
        group = 4 if self.group is None else self.group
        floor = FLOOR if self.floor is None else self.floor
        return LevelRule(self.match, self.shares(), self.kind, self.round_to, self.min_keep, source, group, floor)


class SpaceSpec(_Section):
    """A search space: an ordered list of rules; the first one that matches a unit applies."""

    version: Literal[1] = Field(description="version of the format of this file", examples=[1])
    units: tuple[RuleSpec, ...] = Field(
        strict=False, min_length=1, description="rules by name pattern", examples=['[{match: "*", levels: 8}]']
    )


class ObjectiveSpec(_Section):
    """A measured value and its direction."""

    name: str = Field(min_length=1, description="a cost or a value that the fitness measures", examples=["accuracy"])
    direction: Direction = Field(description="min if lower is better, max if higher is", examples=["min"])
    unit: str = Field("", description="unit of measure, for display", examples=["ms"])
    bound: float | None = Field(
        None,
        allow_inf_nan=False,
        description="the worst admissible value; on a cost, a value up to 1 is a share of dense",
        examples=[0.6],
    )

    @field_validator("name")
    @classmethod
    def _a_name(cls, name: str) -> str:
        if not is_name(name):
            raise mistakes(
                ((), f"expected a name of {NAMED}, got {name!r}. Rename it, in the fitness or the costs too.")
            )
        return name

    @model_validator(mode="before")
    @classmethod
    def _not_a_word(cls, data: Any) -> Any:
        if isinstance(data, str):
            direction = KNOWN_DIRECTIONS.get(data, "min")
            raise mistakes(
                ((), f"expected a name and a direction, got {data!r}. Write {{name: {data}, direction: {direction}}}.")
            )
        return data

    def resolve(self) -> Objective:
        return Objective(self.name, self.direction, self.unit, self.bound)


class StopSpec(_Section):
    """Conditions that end a search before its evaluations are spent."""

    seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="time limit for the search, in seconds, those before a resume included",
        examples=[600],
    )
    target: str | None = Field(
        None,
        description="bounds that end the search once a network meets them",
        examples=["accuracy>=0.9 at macs<=0.5"],
    )
    stagnation: int | None = Field(
        None, ge=2, description="number of evaluations without growth of the front", examples=[200]
    )

    @field_validator("target")
    @classmethod
    def _bounds(cls, target: str | None) -> str | None:
        try:
            if target is not None:
                parse_target(target)
        except ConfigError as error:
            raise mistakes(((), f"{error}. Separate several bounds by 'at' or a comma.")) from None
        return target

    def resolve(self) -> Stop:
        return Stop(self.seconds, parse_target(self.target) if self.target else (), self.stagnation)


@with_options("search", Scoring)
class SearchSpec(_Section):
    """The settings of the search."""

    searcher: SearcherChoice = Field(
        "auto", validate_default=True, description="the searcher, which proposes networks", examples=["auto"]
    )
    evaluations: int = Field(300, ge=1, le=MOST_EVALUATIONS, description="number of networks to score", examples=[300])
    front_size: int | None = Field(
        None,
        ge=2,
        le=MOST_EVALUATIONS,
        description="largest number of networks to build and to measure on the report set; by default 32, or 12 if the "
        "forecast says that building takes longer than the search",
        examples=[32],
    )
    stop: StopSpec = Field(
        {}, validate_default=True, description="conditions that end the search earlier", examples=["{seconds: 600}"]
    )
    seed: int = Field(0, ge=0, le=MOST_SEED, description="seed of every random choice", examples=[0])
    guide: str | None = Field(
        "kl",
        min_length=1,
        description="a measurement, lower is better, that guides the search in place of the first objective that is "
        "not a cost: kl (a lower bound of it for more than 8,192 classes), mse, loss, accuracy, layer or one of the "
        "fitness's own; null for none",
        examples=["kl"],
    )


class FineTuneSpec(_Section):
    """The training of networks before they are measured."""

    steps: int = Field(ge=1, le=MOST_EVALUATIONS, description="training steps for every network", examples=[100])
    lr: float = Field(
        0.01,
        gt=0,
        allow_inf_nan=False,
        description="highest learning rate, lowered where the loss on held-out training examples does not fall",
        examples=[0.01],
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of stochastic gradient descent", examples=[0.9])
    weight_decay: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="weight decay (L2) of all parameters", examples=[1e-4]
    )
    loss: LossChoice = Field(
        "kl",
        validate_default=True,
        description="the training loss: kl or mse to the dense network, or cross_entropy with the targets",
        examples=["kl"],
    )

    def resolve(self) -> FineTune:
        return FineTune(self.steps, self.lr, self.momentum, self.weight_decay, self.loss.resolve())


@with_options("recover", Recovery)
class RecoverSpec(_Section):
    """The training that recovers a network of the front."""

    epochs: int | None = Field(None, description="passes over the training examples", examples=[10])
    steps: int | None = Field(None, description="steps, instead of epochs", examples=[500])
    loss: RecoveryLossChoice = Field(
        "distillation",
        validate_default=True,
        description="the training loss: distillation, cross_entropy, kl or mimic",
        examples=["mimic"],
    )
    augment: AugmentChoice = Field(
        "none",
        validate_default=True,
        description="random changes of the inputs: none or flip_crop",
        examples=["flip_crop"],
    )
    train: TrainChoice = Field(
        "all",
        validate_default=True,
        description="what is trained: all, norms_biases, head, lora or mask_lora",
        examples=["norms_biases"],
    )
    evaluate: int | None = Field(
        None, description="steps between measurements on the selection set; null for one epoch", examples=[100]
    )

    @model_validator(mode="after")
    def _possible(self) -> RecoverSpec:
        try:
            self.resolve()
        except ConfigError as error:
            raise mistakes(*(((), problem) for problem in error.problems)) from error
        return self

    def resolve(self) -> Recovery:
        own = {"loss": self.loss.resolve(), "augment": self.augment.resolve(), "train": self.train.resolve()}
        return Recovery(**{**{name: getattr(self, name) for name in type(self).model_fields}, **own})


class TuneSpec(_Section):
    """The form in which candidates are scored: a mode, or a form whose missing keys stay at their defaults."""

    mode: Literal["auto", "off"] | None = Field(
        None, description="auto times some forms at the start of a search; off keeps the data's form", examples=["auto"]
    )
    layout: Layout | None = Field(None, description="channels_last or contiguous", examples=["channels_last"])
    dtype: Precision | None = Field(None, description="float32 or bfloat16", examples=["bfloat16"])
    batch: int | None = Field(None, ge=1, description="selection examples per batch", examples=[250])
    threads: int | None = Field(None, ge=1, le=MOST_THREADS, description="number of torch's CPU threads", examples=[2])

    @model_validator(mode="before")
    @classmethod
    def _word(cls, data: Any) -> Any:
        """Reads a bare word as the mode; YAML reads `off` as false."""
        data = {True: "auto", False: "off"}[data] if isinstance(data, bool) else data
        return {"mode": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_way(self) -> TuneSpec:
        form = [name for name in ("layout", "dtype", "batch", "threads") if getattr(self, name) is not None]
        if bool(self.mode) == bool(form):
            got = f"{self.mode} and {', '.join(form)}" if form else "none of them"
            raise mistakes(((), f"expected auto, off, or a form such as {{dtype: bfloat16}}, got {got}."))
        return self

    def resolve(self) -> Literal["auto", "off"] | Form:
        return self.mode or Form(self.layout, self.dtype or "float32", self.batch, self.threads)


class ResourcesSpec(_Section):
    """The resources of one worker."""

    cpus: float = Field(
        1,
        gt=0,
        le=MOST_THREADS,
        allow_inf_nan=False,
        description="number of CPUs of a worker, which uses as many threads",
        examples=[1],
    )
    gpus: float = Field(
        0,
        ge=0,
        le=MOST_THREADS,
        allow_inf_nan=False,
        description="number or share of GPUs of a worker, with ray",
        examples=[0.25],
    )
    memory_gib: float | None = Field(
        None,
        gt=0,
        le=MOST_GIB,
        allow_inf_nan=False,
        description="memory of a worker, in GiB; null for no limit",
        examples=[4],
    )


@with_options("run", Scoring)
class RunSpec(_Section):
    """The settings of the executor, and of the process that runs the search."""

    executor: Literal["serial", "processes", "ray"] = Field(
        "serial", description="the executor, which evaluates networks", examples=["serial"]
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=MOST_WORKERS,
        description="number of parallel workers; null for as many as fit",
        examples=[2],
    )
    resources: ResourcesSpec = Field(
        {}, validate_default=True, description="resources of a worker", examples=["{cpus: 1}"]
    )
    address: str = Field(
        "local",
        min_length=1,
        description="address of the Ray cluster: local, auto or ray://host:10001",
        examples=["auto"],
    )
    runtime_env: dict[str, Any] = Field(
        {}, description="Ray's runtime environment, for code on the workers", examples=['{working_dir: "."}']
    )
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        "auto",
        description="time limit for one evaluation, in seconds; auto derives it from earlier ones",
        examples=["auto"],
    )
    attempts: int = Field(
        3,
        ge=1,
        le=1000,
        description="number of attempts for a candidate whose worker dies or does not answer",
        examples=[3],
    )
    deterministic: bool = Field(
        False, description="the same front for any number of workers, in exchange for some waiting", examples=["true"]
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:N", examples=["auto"]
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=MOST_THREADS,
        description="number of torch's CPU threads in this process; null for torch's default",
        examples=[2],
    )

    tune: TuneSpec = Field(
        "auto",
        validate_default=True,
        description="the form in which candidates are scored: auto, off or a form",
        examples=["auto"],
    )
    trackers: tuple[TrackerCall, ...] = Field(
        (),
        strict=False,
        description="trackers, which observe the run",
        examples=['[{call: "my_tracker.py:Log", path: log.csv}]'],
    )

    @model_validator(mode="after")
    def _fitting(self) -> RunSpec:
        """Rejects keys that the executor does not support, instead of ignoring them."""
        wrong: list[tuple[KeyPath, str]] = []
        if self.executor == "serial":
            changed = self._changed("resources", "timeout_s", "attempts")
            wrong += [
                (
                    (key,),
                    "expected it with processes or ray only, the executor is serial. Remove it, or write "
                    "`executor: processes`.",
                )
                for key in changed
            ]
            if self.workers not in (None, 1):
                wrong.append(
                    (
                        ("workers",),
                        f"expected 1, as the serial executor has one worker, got {self.workers}. "
                        "Write 1, or `executor: processes`.",
                    )
                )
        if self.executor != "ray":
            changed = self._changed("address", "runtime_env")
            wrong += [
                ((key,), f"expected it with ray only, the executor is {self.executor}. Remove it.") for key in changed
            ]
            if self.resources.gpus:
                wrong.append(
                    (
                        ("resources", "gpus"),
                        f"expected it with ray only, the executor is {self.executor}. "
                        "Remove it; all processes use `device`.",
                    )
                )
        if wrong:
            raise mistakes(*wrong)
        return self

    def _changed(self, *keys: str) -> list[str]:
        """The given keys that are not at their default."""
        default = type(self).model_construct(resources=ResourcesSpec.model_validate({}))
        return [key for key in keys if getattr(self, key) != getattr(default, key)]

    def resolve(self) -> Executor:
        memory = self.resources.memory_gib
        return Executor(
            self.executor,
            self.workers,
            self.resources.cpus,
            self.resources.gpus,
            None if memory is None else round(memory * GIB),
            self.address,
            self.runtime_env,
            self.attempts,
            None if self.timeout_s == "auto" else self.timeout_s,
        )


class JobSpec(_Section):
    """A validated job file: every plug-in is imported, every argument checked, and every path absolute."""

    version: Literal[1] = Field(description="version of the format of this file", examples=[1])
    name: str = Field(
        "job",
        pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$",
        max_length=200,
        description="name of the run and its folder, without slashes and not starting with a dot",
        examples=["first"],
    )
    model: Call = Field(
        description="the function that makes the trained network", examples=['{call: "autoprune.zoo:digits_resnet"}']
    )
    calls: Call | None = Field(
        None,
        description="the function that makes further example calls of the model, besides the data's inputs; null for "
        "none",
        examples=['{call: "my_models.py:calls"}'],
    )
    data: Call = Field(
        description="the function that makes the data sets", examples=['{call: "autoprune.data:digits"}']
    )
    space: SpaceSpec = Field(
        description="the search space, inline or as a file", examples=["search_spaces/channels.yaml"]
    )
    objectives: tuple[ObjectiveSpec, ...] = Field(
        strict=False,
        min_length=1,
        description="the objectives to trade off",
        examples=["[{name: accuracy, direction: max}, {name: macs, direction: min}]"],
    )
    fitness: FitnessCall = Field(
        {"call": "autoprune.measure.fitness:classification"},
        validate_default=True,
        description="the function that measures a network",
        examples=['{call: "autoprune.measure.fitness:classification"}'],
    )
    criterion: CriterionChoice = Field(
        "obs",
        validate_default=True,
        description="the criterion, which orders the positions of a unit",
        examples=["obs"],
    )
    masks: MaskChoice = Field(
        "obs",
        validate_default=True,
        description="the mask rule, which chooses the entries of a weight that stay",
        examples=["obs"],
    )
    compensation: CompensationName = Field(
        "sequential",
        description="the fit of the front's networks: sequential fits them to the dense one, layer by layer on all "
        "calibration examples; thorough fits better at three times the cost; mimic trains the fitted ones 1,000 steps, "
        "without labels, to have the dense network's features; none leaves them as assembled",
        examples=["sequential"],
    )
    finetune: FineTuneSpec | None = Field(
        None,
        description="training of every network on the data's train set before it is measured; null for no training",
        examples=["{steps: 100, lr: 0.01}"],
    )
    recover: RecoverSpec | None = Field(
        None,
        description="options of `autoprune recover`, which trains a network of the front; the search ignores them",
        examples=["{epochs: 10, lr: 0.01}"],
    )
    expected: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        {},
        description="expected values of the dense network on the selection set; a run warns if they differ",
        examples=["{accuracy: 0.917}"],
    )
    costs: dict[str, CostCall] = Field(
        {}, description="additional costs by name", examples=['{bytes: {call: "my_costs.py:bytes"}}']
    )
    search: SearchSpec = Field(
        {}, validate_default=True, description="search settings, inline or as a file", examples=["{searcher: auto}"]
    )
    run: RunSpec = Field(
        {},
        validate_default=True,
        description="the executor and its settings, inline",
        examples=["{executor: serial}"],
    )

    _context: Context = PrivateAttr(default_factory=Context)

    def model_post_init(self, context: Any) -> None:
        if isinstance(context, Context):
            self._context = context

    @field_validator("objectives")
    @classmethod
    def _distinct(cls, objectives: tuple[ObjectiveSpec, ...]) -> tuple[ObjectiveSpec, ...]:
        seen = Counter[str]()
        repeated: list[tuple[KeyPath, str]] = []
        for index, name in enumerate(objective.name for objective in objectives):
            seen[name] += 1
            if seen[name] > 1:
                repeated.append(((index, "name"), f"expected each objective once, got {name!r} again. Remove one."))
        if repeated:
            raise mistakes(*repeated)
        return objectives

    @field_validator("costs")
    @classmethod
    def _new_names(cls, costs: dict[str, CostCall]) -> dict[str, CostCall]:
        if wrong := [name for name in costs if not is_name(name)]:
            raise mistakes(
                *(((name,), f"expected a name of {NAMED}, got {name!r}. Rename the cost.") for name in wrong)
            )
        taken = [name for name in costs if name in ("macs", "params", *SPARSE_COSTS)]
        if taken:
            raise mistakes(*(((name,), f"{name!r} is computed already. Give the cost another name.") for name in taken))
        return costs

    @model_validator(mode="after")
    def _known_names(self) -> JobSpec:
        """Rejects names that a built-in fitness never reports; those of a user's fitness are known only later."""
        objectives, search = [o.resolve() for o in self.objectives], self.search
        reported = reported_names(self.fitness.bound(), search.guide)
        target = search.stop.resolve().target
        wrong = unknown_names(reported, objectives, search.guide, target, self.expected, self.costs)
        if wrong:
            raise mistakes(*wrong)
        return self

    def where(self, *path: str | int) -> str:
        """The place of a key, as in "configs/quickstart.yaml:7"."""
        return self._context.document.place(path)

    @property
    def remarks(self) -> tuple[str, ...]:
        """A line for each file of the job that came with autoprune."""
        return self._context.remarks

    def document(self) -> dict[str, Any]:
        """The job as plain data, from which `load` makes the same job in any folder."""
        document: dict[str, Any] = _plain(self)
        return document

    def resolve(self) -> Job:
        """The job with its objects. Nothing is built or read yet: the model and data factories run with the job."""
        return Job(
            name=self.name,
            model=self.model.bound(),
            data=self.data.bound(),
            calls=self.calls.bound() if self.calls else None,
            rules=tuple(rule.resolve(self.where("space", "units", i)) for i, rule in enumerate(self.space.units)),
            objectives=tuple(objective.resolve() for objective in self.objectives),
            searcher=self.search.searcher.resolve(),
            fitness=self.fitness.bound(),
            criterion=self.criterion.resolve(),
            masks=self.masks.resolve(),
            costs={name: cost.bound() for name, cost in self.costs.items()},
            evaluations=self.search.evaluations,
            front_size=self.search.front_size,
            seed=self.search.seed,
            stop=self.search.stop.resolve(),
            expected=self.expected,
            guide=self.search.guide,
            scoring=resolved_options(Scoring, {"search": self.search, "run": self.run}),
            compensation=self.compensation,
            finetune=self.finetune.resolve() if self.finetune else None,
            recover=self.recover.resolve() if self.recover else None,
            device=self.run.device,
            threads=self.run.threads,
            tune=self.run.tune.resolve(),
            executor=self.run.resolve(),
            deterministic=self.run.deterministic,
            trackers=tuple(tracker.bound() for tracker in self.run.trackers),
            document=self.document(),
        )


def _plain(value: Any) -> Any:
    """The value as lists, mappings and scalars, without the keys that are None both by default and here."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        unset = {key for key, entry in value if entry is None and key in fields and fields[key].default is None}
        return {key: _plain(entry) for key, entry in value if key not in unset}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
