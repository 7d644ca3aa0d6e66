"""User code that forks: its children neither answer, nor write, nor go on with the run, wherever they come from."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import multiprocessing, os, sys
from pathlib import Path
import torch
sys.path[:0] = {paths}
import autoprune
from autoprune.measure.fitness import classification
from autoprune.run.after import read_evaluations
from autoprune.run.session.job import Executor
from autoprune.searchers import make_searcher
from tiny import random_data
from autoprune.zoo.resnet import ResNet

torch.set_num_threads(1)
calls = []
def fitness(model, batches):
    {body}
    return classification(model, batches)

def search(**options):
    torch.manual_seed(0)
    given = dict(fitness=fitness, guide="kl", searcher="random", evaluations=6)
    model = ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()
    return autoprune.search(model, random_data(0), **given | options)

if __name__ == "__main__":
    run = Path(sys.argv[1])
    {main}
    print("driver", sum(not e.ok for e in told), len(told), flush=True)
"""
MAIN = "search(out=run, executor=Executor({executor!r}, 2)); told = read_evaluations(run)"
SERIAL = MAIN.format(executor="serial")
RETURNS, RAISES, EXITS = "os.fork()", "if os.fork() == 0: 1 / 0", "if os.fork() == 0: sys.exit(0)"


def drivers(folder, body="pass", main=SERIAL):
    """What every process that came to the end of the script says."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(paths=[str(ROOT / "tests" / "run"), str(ROOT)], body=body, main=main))
    command = [sys.executable, str(script), str(folder / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


IN_TURN = """calls.append("")
    if len(calls) % 3 == 0:
        {returns}
    elif len(calls) % 3 == 1:
        {exits}
    else:
        with multiprocessing.get_context("fork").Pool(1) as pool: assert pool.map(abs, [-1]) == [1]
"""


@pytest.mark.slow
def test_a_child_of_the_fitness_does_not_go_on_with_the_search_and_a_pool_of_its_own_works(tmp_path):
    assert drivers(tmp_path, IN_TURN.format(returns=RETURNS, exits=EXITS)) == ["driver 0 6"]


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("body", [RETURNS, RAISES, EXITS])
def test_a_child_of_the_fitness_does_not_answer_for_its_worker(tmp_path, body):
    assert drivers(tmp_path, body, MAIN.format(executor="processes")) == ["driver 0 6"]


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_child_of_the_fitness_does_not_answer_for_its_actor(tmp_path):
    assert drivers(tmp_path, RETURNS, MAIN.format(executor="ray")) == ["driver 0 6"]


EVERYWHERE = """
    def asking(problem, seed):
        searcher = make_searcher("random", problem, seed=seed)
        ask, tell = searcher.ask, searcher.tell
        searcher.ask = lambda n: [ask(n), os.fork()][0]
        searcher.tell = lambda evaluations: [tell(evaluations), os.fork()][0]
        os.fork()
        return searcher
    calls = []
    def cost(kept):
        if not calls:
            os.fork()
        calls.append(kept)
        return float(sum(kept.values()))
    def progress(news):
        os.fork()
    front = search(searcher=asking, costs={"kept_positions": cost}, progress=progress, evaluations=2)
    told = front._result.evaluations
"""


@pytest.mark.slow
def test_children_of_searchers_costs_and_progress_end_too(tmp_path):
    assert drivers(tmp_path, main=EVERYWHERE.strip()) == ["driver 0 2"]
