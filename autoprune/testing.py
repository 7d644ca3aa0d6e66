"""Contract tests for the authors of plug-ins: searchers, evaluators and fitness functions, and a synthetic problem.

>>> check_searcher(MySearcher)             # AssertionError with a sentence, or nothing
>>> check_fitness(my_fitness, model, batches)
>>> check_evaluator(evaluator, [candidate, another])

Needs no torch until a model is checked.
"""

from __future__ import annotations

import math
import pickle
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autoprune.core.contracts import Evaluator, Searcher, fidelities_of, reads_parts
from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from autoprune.measure.batch import Batch

MakeSearcher = Callable[[Problem, int], Searcher]
Answer = Callable[[int, Candidate], Evaluation]  # of the how-manieth evaluation, and of what

OBJECTIVES = (Objective("accuracy", "max"), Objective("macs", "min"), Objective("params", "min"))


@dataclass(frozen=True)
class Synthetic:
    """A problem with a known answer: `evaluate` needs no network.

    With x_u the share removed from unit u: kl = sum of weight_u x_u^2 + interaction * sum of pair_u x_u x_{u+1}, and
    accuracy = 0.9 exp(-kl) + 0.1, so that 0 <= kl and dense is best.
    """

    problem: Problem
    weights: np.ndarray  # (u,)
    pairs: np.ndarray  # (u - 1,), the interaction's strength in them

    def kl(self, levels: Sequence[int] | np.ndarray) -> float:
        """The damage of (u,) levels, 0 when dense."""
        widths = np.array([counts[0] for counts in self.problem.space.levels])
        removed = 1.0 - self.problem.space.kept(levels) / widths
        return float(self.weights @ removed**2 + self.pairs @ (removed[:-1] * removed[1:]))

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Every objective, every cost, and kl, accuracy and error."""
        kl = self.kl(candidate.levels)
        accuracy = 0.9 * math.exp(-kl) + 0.1
        costs = {n: float(v[0]) for n, v in self.problem.cost_values(np.array([candidate.levels])).items()}
        return Evaluation(candidate, {"accuracy": accuracy, "error": -accuracy, "kl": kl, **costs})


def synthetic_problem(
    *,
    units: int = 8,
    levels: int = 6,
    seed: int = 0,
    interaction: float = 0.3,
    objectives: int = 2,
    budget: float | None = None,
    coupled: bool = False,
    branches: int = 0,
) -> Synthetic:
    """An allocation problem of `units` units with `levels` levels each, from dense down to one `levels`-th.

    `objectives` counts from accuracy, macs, params; `budget` bounds the macs by a share of the dense network's;
    `coupled` makes them products of neighbours, as for the channels of a chain of convolutions, and not sums;
    `branches` counts further units that are there or not (levels 1 and 0), each with all the cost of one of the others.
    """
    rng = np.random.default_rng(seed)
    width = 4 * levels
    counts = tuple(range(width, 0, -4))
    names, gates = (tuple(f"{kind}{u}" for u in range(n)) for kind, n in (("unit", units), ("branch", branches)))
    space = SearchSpace(names + gates, (counts,) * units + ((1, 0),) * branches)
    widths = dict.fromkeys(names, width) | dict.fromkeys(gates, 1)
    costs = CostModel(widths, _synthetic_costs(names, gates, rng, coupled))
    bounds = () if budget is None else (Bound("macs", "<=", budget * costs.dense()["macs"]),)
    problem = Problem(space, OBJECTIVES[:objectives], costs, bounds, "kl")
    weights = rng.lognormal(-2.0, 1.0, units + branches)
    return Synthetic(problem, weights, interaction * rng.lognormal(-2.0, 1.0, max(units + branches - 1, 0)))


def _synthetic_costs(
    names: Sequence[str], gates: Sequence[str], rng: np.random.Generator, coupled: bool
) -> dict[str, Polynomial]:
    macs = params = Polynomial.constant(0)
    for u, name in enumerate(names):
        before = Polynomial.of(names[u - 1]) if coupled and u else Polynomial.constant(8)
        weights = Polynomial.constant(9) * before * Polynomial.of(name)
        if u < len(gates):
            weights = weights * Polynomial.of(gates[u])
        params += weights
        macs += Polynomial.constant(int(rng.integers(1, 65))) * weights
    return {"macs": macs, "params": params}


def check_searcher(make: MakeSearcher, *, evaluations: int = 60, seeded: bool = True) -> None:
    """Raises AssertionError, with a sentence, where a searcher breaks its contract (see core.contracts.Searcher).

    `make` builds one from (problem, seed). Checked on small synthetic problems of one to three objectives, with and
    without a budget, one by one and with three candidates in flight: proposals lie within space and bounds, none
    comes twice, units may go as a whole, equal seeds and calls give equal proposals, failed and NaN answers are
    survived, a small space is ended on, flipping an objective's direction together with its sign changes nothing, and
    no global random state is touched or read. `seeded` says that the seed has an influence.
    """
    for objectives in (1, 2, 3):
        for budget in (None, 0.4):
            synthetic = synthetic_problem(units=5, levels=4, seed=1, objectives=objectives, budget=budget)
            _check_trace(make, synthetic, evaluations)
    _check_trace(make, synthetic_problem(units=4, levels=4, seed=1, budget=0.4, branches=2), evaluations)
    _check_survives(make, evaluations)
    _check_ends(make)
    _check_directions(make, evaluations)
    _check_seeds(make, evaluations, seeded)


def trace(searcher: Searcher, problem: Problem, answer: Answer, evaluations: int, *, slots: int = 1) -> list[Candidate]:
    """What a searcher proposes when answered with up to `slots` in flight, the last asked first; checks each ask."""
    asked: list[Candidate] = []
    flying: list[Candidate] = []
    seen: set[tuple[tuple[int, ...], float]] = set()
    known_fidelities = {*fidelities_of(searcher), 1.0}
    while len(asked) < evaluations:
        new = searcher.ask(min(slots - len(flying), evaluations - len(asked)))
        _check_asked(problem, new, slots - len(flying), seen)
        assert {c.fidelity for c in new} <= known_fidelities, f"expected fidelities of {known_fidelities}, got {new}"
        asked += new
        flying += new
        if not flying:
            assert searcher.ask(1) == [], "a searcher that has ended ([] while nothing is pending) proposed again"
            return asked
        searcher.tell([_in_parts(answer(len(asked), flying.pop()), searcher)])
    return asked


def _in_parts(evaluation: Evaluation, searcher: Searcher) -> Evaluation:
    """With values by part for a searcher that reads them, the same in every part."""
    if not reads_parts(searcher):
        return evaluation
    count = sum(fidelity <= evaluation.candidate.fidelity for fidelity in fidelities_of(searcher))
    return replace(evaluation, parts={name: (value,) * count for name, value in evaluation.values.items()})


def _check_asked(problem: Problem, new: Sequence[Candidate], n: int, seen: set[tuple[tuple[int, ...], float]]) -> None:
    assert len(new) <= n, f"asked for at most {n} candidates, got {len(new)}"
    for candidate in new:
        problem.space.check(candidate)
        key = problem.space.key(candidate), candidate.fidelity
        assert key not in seen, f"the network {key[0]} was proposed twice at fidelity {key[1]:g}"
        assert problem.feasible(np.array([candidate.levels]))[0], f"{candidate} is outside the bounds {problem.bounds}"
        seen.add(key)


def _check_trace(make: MakeSearcher, synthetic: Synthetic, evaluations: int) -> None:
    for slots in (1, 3):
        runs = []
        for shift in (1, 2):  # other global states: whoever reads them proposes something else
            with _global_state(shift):
                searcher = make(synthetic.problem, 7)
                runs.append(trace(searcher, synthetic.problem, _answers(synthetic), evaluations, slots=slots))
        assert runs[0], "the searcher proposed nothing at all"
        assert runs[0] == runs[1], (
            f"the same seed and the same calls gave other proposals with {slots} in flight: draw from a generator "
            "made from the seed, and keep state in the searcher alone"
        )


def _check_survives(make: MakeSearcher, evaluations: int) -> None:
    """Every second answer is bad, in all ways an answer can be; then all of them are."""
    synthetic = synthetic_problem(units=5, levels=4, seed=1)
    for share in (2, 1):
        found = trace(make(synthetic.problem, 3), synthetic.problem, _bad(synthetic, share), evaluations, slots=2)
        assert found, "the searcher proposed nothing at all"


def _check_ends(make: MakeSearcher) -> None:
    synthetic = synthetic_problem(units=2, levels=3, seed=1)
    for bad in (False, True):
        answer = _bad(synthetic, 2) if bad else _answers(synthetic)
        searcher = make(synthetic.problem, 3)
        count = synthetic.problem.space.count * len(fidelities_of(searcher) or (1.0,))
        found = trace(searcher, synthetic.problem, answer, count + 1, slots=2)
        assert len(found) <= count, f"a space of {count} networks and fidelities was asked {len(found)} times"


def _check_directions(make: MakeSearcher, evaluations: int) -> None:
    """Accuracy maximised and its negative minimised are the same problem."""
    up = synthetic_problem(units=5, levels=4, seed=1)
    flipped = (Objective("error", "min"), *up.problem.objectives[1:])
    down = replace(up, problem=replace(up.problem, objectives=flipped))
    found = [trace(make(s.problem, 3), s.problem, _answers(s), evaluations) for s in (up, down)]
    assert found[0] == found[1], "maximising a value and minimising its negative gave other proposals"


def _check_seeds(make: MakeSearcher, evaluations: int, seeded: bool) -> None:
    synthetic = synthetic_problem(units=5, levels=4, seed=1)
    found = [trace(make(synthetic.problem, s), synthetic.problem, _answers(synthetic), evaluations) for s in (0, 1)]
    assert (found[0] != found[1]) == seeded, (
        "two seeds gave the same proposals: the seed is not used"
        if seeded
        else "two seeds gave other proposals, of a searcher said to have nothing random"
    )


def _answers(synthetic: Synthetic) -> Answer:
    return lambda _, candidate: synthetic.evaluate(candidate)


def _bad(synthetic: Synthetic, every: int) -> Answer:
    """One answer in `every` is bad: failed, infeasible, timed out, or ok with NaN or infinite values in turn."""

    def answer(number: int, candidate: Candidate) -> Evaluation:
        good = synthetic.evaluate(candidate)
        wrong = dict.fromkeys(good.values, math.nan), dict.fromkeys(good.values, math.inf)
        kinds = [
            Evaluation(candidate, status="failed", cause="a test"),
            Evaluation(candidate, status="infeasible", cause="a test"),
            Evaluation(candidate, status="timeout", cause="a test"),
            *(Evaluation(candidate, values) for values in wrong),
        ]
        return good if number % every else kinds[number // every % len(kinds)]

    return answer


@contextmanager
def _global_state(seed: int) -> Iterator[None]:
    """Seeds the global generators, asserts that nobody moved them, and puts them back."""
    before = _global_states()
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        moved = _global_states()
        yield
        assert _global_states() == moved, "the global random state was moved: draw from a generator of your own"
    finally:
        random.setstate(before[0])
        np.random.set_state(pickle.loads(before[1]))  # noqa: NPY002


def _global_states() -> tuple[tuple[Any, ...], bytes]:
    """The state of `random`, and that of numpy's global generator as bytes that can be compared."""
    return random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002


def check_evaluator(evaluator: Evaluator, candidates: Sequence[Candidate], *, failing: Candidate | None = None) -> None:
    """Raises AssertionError, with a sentence, where an evaluator breaks its contract (see core.contracts.Evaluator).

    Submits the first of at least two candidates, the others, and the first again: an ok answer of finite values each
    time, and the very same ones for the first. `failing` is a candidate whose evaluation must fail as a result.
    """
    assert len(candidates) >= 2, "check_evaluator needs at least two candidates"
    assert evaluator.slots >= 1, f"expected at least one slot, got {evaluator.slots}"
    answers = [_answered(evaluator, candidate) for candidate in (*candidates, candidates[0])]
    for answer in answers:
        assert answer.ok, f"expected an ok evaluation, got {answer.status}: {answer.cause}"
        _check_values(answer.values)
    assert dict(answers[0].values) == dict(answers[-1].values), (
        f"the same candidate gave {dict(answers[0].values)}, and after another {dict(answers[-1].values)}: something "
        "of the candidate between was left behind"
    )
    if failing is not None:
        answer = _answered(evaluator, failing)
        assert not answer.ok, f"expected {failing} to fail as an Evaluation, got status {answer.status!r}"
        assert answer.cause, "a failed evaluation must say its cause"


def answers(evaluator: Evaluator, candidates: Iterable[Candidate]) -> Iterator[Evaluation]:
    """What comes of candidates, in the order of the answers, with the evaluator's slots kept full."""
    waiting, flying = deque(candidates), 0
    while waiting or flying:
        while waiting and flying < evaluator.slots:
            evaluator.submit(waiting.popleft())
            flying += 1
        yield evaluator.collect()
        flying -= 1


def _answered(evaluator: Evaluator, candidate: Candidate) -> Evaluation:
    evaluator.submit(candidate)
    answer = evaluator.collect()
    assert answer.candidate == candidate, f"submitted {candidate}, collected {answer.candidate}"
    return answer


def check_fitness(
    fitness: Callable[[nn.Module, Sequence[Batch]], float | Mapping[str, float]],
    model: nn.Module,
    batches: Sequence[Batch],
) -> None:
    """Raises AssertionError, with a sentence, where a fitness function breaks its contract.

    It returns one finite number or a dict of them by name, the same for the same model and batches, and leaves the
    model's parameters, buffers and training mode as they were.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mode = [module.training for module in model.modules()]
    first, second = (_named(fitness(model, batches)) for _ in range(2))
    _check_values(first)
    assert first == second, f"the same model and batches gave {first} and then {second}"
    changed = [name for name, tensor in model.state_dict().items() if not _equal(tensor, before[name])]
    assert not changed, f"the fitness changed the model's {changed}"
    assert mode == [module.training for module in model.modules()], "the fitness changed the model's training mode"


def _named(value: float | Mapping[str, float]) -> dict[str, float]:
    return dict(value) if isinstance(value, Mapping) else {"fitness": value}


def _equal(left: Any, right: Any) -> bool:
    """Whether two tensors agree everywhere; NaN agrees with NaN."""
    return bool(((left == right) | ((left != left) & (right != right))).all())


def _check_values(values: Mapping[str, float]) -> None:
    assert values, "expected at least one measured value, got none"
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert isinstance(name, str), f"expected values by name, got the key {name!r}"
        assert number, f"expected {name} to be a number, got {value!r} of type {type(value).__name__}"
        assert math.isfinite(value), f"expected {name} to be finite, got {value}"
