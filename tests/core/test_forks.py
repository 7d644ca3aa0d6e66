"""Forked processes end where they would leave, with the code they would have ended with; the parent goes on."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAD = """
import multiprocessing, os, subprocess, sys
from autoprune.core.process import end_unless, ending_forks
"""
WAIT = """
if child:
    print("parent", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    {act}
"""


def output_of(body):
    code = HEAD + textwrap.dedent(body)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("act", "code"), [("pass", "0"), ("sys.exit()", "0"), ("sys.exit(7)", "7"), ("sys.exit('no')", "1"), ("1 / 0", "1")]
)
def test_a_forked_process_ends_with_the_code_it_would_have_had(act, code):
    body = "with ending_forks():\n    child = os.fork()" + textwrap.indent(WAIT.format(act=act), "    ")
    printed, errors = output_of(body + "\nprint('after')")
    assert printed == ["parent", code, "after"]
    assert f"has ended with code {code}: it would have gone on with its parent's work" in errors


def test_handlers_are_the_parents_alone():
    body = "import atexit; atexit.register(print, 'handler')\n@ending_forks()\ndef call():\n    child = os.fork()"
    printed, _ = output_of(body + textwrap.indent(WAIT.format(act="return"), "    ") + "call()")
    assert printed == ["parent", "0", "handler"]


def test_children_of_libraries_do_their_work():
    printed, errors = output_of("""
        with ending_forks():
            context = multiprocessing.get_context("fork")
            with context.Pool(2) as pool:
                print(sum(pool.map(abs, [-1, -2])))
            print(subprocess.run(["echo", "echo"], capture_output=True, text=True).stdout)
        """)
    assert printed == ["3", "echo"]
    assert not errors


def test_what_only_the_owner_may_do_ends_another_process():
    printed, _ = output_of("owner, child = os.getpid(), os.fork()" + WAIT.format(act="end_unless(owner, 3); print(1)"))
    assert printed == ["parent", "3"]
