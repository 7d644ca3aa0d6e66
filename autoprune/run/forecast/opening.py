"""Opens a session and forecasts its run, as both a search and an inspection begin."""

from __future__ import annotations

import time
from dataclasses import replace

from autoprune.measure.form import Tuning
from autoprune.run.forecast.forecast import Forecast
from autoprune.run.forecast.forecaster import make_forecast
from autoprune.run.session.job import Job, OnProgress, Progress
from autoprune.run.session.session import Session, open_session


def forecast_of(job: Job, progress: OnProgress, recorded: Tuning | None = None) -> tuple[Forecast, Session]:
    """The forecast of a job's run, which is also reported as progress, and the session.

    A job that leaves the size of the front open gets the size that the forecast chooses.
    """
    start = time.process_time()
    session = open_session(job, progress, recorded)
    session.progress(Progress("forecast", 0, 1))
    forecast = make_forecast(session, time.process_time() - start)
    session.progress(Progress("forecast", 1, 1, forecast.text()))
    return forecast, replace(session, job=replace(session.job, front_size=forecast.front_size))
