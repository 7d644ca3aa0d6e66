"""Trials of an Optuna study, each waiting for what comes of the network it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoprune.core.space import Levels

if TYPE_CHECKING:
    import optuna

Steps = dict[int, float]


class Trials:
    """The open trials by network: several may mean the same one, and end as it does.

    Losses on parts of the selection set are reported to all of them, and the first one says whether the network is
    pruned. A trial that comes later hears of what was reported before it.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._open: dict[Levels, list[optuna.Trial]] = {}
        self._reports: dict[Levels, Steps] = {}
        self._pruned: set[Levels] = set()

    def add(self, trial: optuna.Trial, levels: Levels) -> None:
        self._open.setdefault(levels, []).append(trial)
        for step, loss in self._reports.get(levels, {}).items():
            trial.report(loss, step)

    def wait(self, levels: Levels) -> bool:
        """Whether any trial waits for a network."""
        return levels in self._open

    def report(self, levels: Levels, step: int, loss: float) -> None:
        self._reports.setdefault(levels, {})[step] = loss
        for trial in self._open[levels]:
            trial.report(loss, step)

    def heard(self, levels: Levels, step: int) -> bool:
        """Whether a loss was reported for a step."""
        return step in self._reports.get(levels, {})

    def prune(self, levels: Levels) -> bool:
        """Whether a network that was reported of is given up."""
        if self._open[levels][0].should_prune():
            self._pruned.add(levels)
        return levels in self._pruned

    def end(self, levels: Levels, losses: tuple[float, ...]) -> None:
        """Ends the trials of a network: complete with its losses, without any pruned or failed."""
        state = "COMPLETE" if losses else "PRUNED" if levels in self._pruned else "FAIL"
        for trial in self._open.pop(levels, []):
            self._tell(trial, state, losses)

    def reject(self, trial: optuna.Trial) -> None:
        """Ends a trial outside the bounds."""
        self._tell(trial, "PRUNED")

    def _tell(self, trial: optuna.Trial, state: str, losses: tuple[float, ...] = ()) -> None:
        from optuna.trial import TrialState

        try:
            self._study.tell(trial, losses or None, state=TrialState[state])
        except (KeyError, RuntimeError) as error:
            # samplers that try a whole space end Optuna's own loop, which does not run, and the grid looks for its mark
            # on enqueued trials; the trial is told by then
            if not any(word in str(error) for word in ("Study.stop", "grid_id")):
                raise
