"""Open trials of an Optuna study, each waiting for the result of its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoprune.core.space import Levels

if TYPE_CHECKING:
    import optuna

Steps = dict[int, float]


class Trials:
    """The open trials by network: several trials may have the same network, and end alike.

    Losses on parts of the selection set are reported to all of them, and the first one decides whether the network is
    pruned. A trial that is added later receives the earlier reports.
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
        """Whether the pruner stops a network with reported losses."""
        if self._open[levels][0].should_prune():
            self._pruned.add(levels)
        return levels in self._pruned

    def end(self, levels: Levels, losses: tuple[float, ...]) -> None:
        """Ends the trials of a network: complete if it has losses, else pruned if reported before, else failed."""
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
            # samplers that exhaust a space stop Optuna's own loop, which does not run, and the grid looks for its mark
            # on enqueued trials; the trial is told by then
            if not any(word in str(error) for word in ("Study.stop", "grid_id")):
                raise
