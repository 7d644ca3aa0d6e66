"""Run folders whose files were damaged, edited or mixed up: a command names the file, or its result is right."""

import json
import logging
import random
import shutil

import pytest

from autoprune import config
from autoprune.errors import AutopruneError, JournalError, RunDamaged
from autoprune.run import export_study, read_evaluations, read_front, resume, search, solve
from autoprune.run import write_report as report
from autoprune.run.after import export
from autoprune.run.records.journal import encode, read_journal, read_run, repair_journal

SHOWN = ("front.json", "space.json", "structure.json", "environment.json")
FILES = (*SHOWN, "job.yaml", "additivity.csv", "bank.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small):
    """A finished run."""
    path = tmp_path_factory.mktemp("whole") / "run"
    search(small, path)
    return path


@pytest.fixture(scope="module")
def small(data):
    import torch

    from autoprune.core.levels import LevelRule
    from autoprune.core.objective import Objective
    from autoprune.measure.fitness import classification
    from autoprune.run.session.job import Job
    from autoprune.searchers import make_searcher
    from autoprune.zoo.resnet import ResNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()
    return Job(
        name="tiny",
        model=lambda: model,
        data=lambda: data,
        rules=(LevelRule("*", (0.5,)),),
        objectives=(Objective("accuracy", "max"), Objective("macs", "min")),
        searcher=lambda problem, seed: make_searcher("random", problem, seed=seed),
        fitness=classification,
        evaluations=8,
        front_size=3,
        threads=1,
        compensation="none",
        document={"name": "tiny"},
    )


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def journal_of(run):
    return run / "journal.jsonl"


def lines_of(run):
    return journal_of(run).read_bytes().splitlines(keepends=True)


def write_lines(run, lines):
    journal_of(run).write_bytes(b"".join(lines))


def assert_as_whole(run, whole):
    assert (run / "front.csv").read_bytes() == (whole / "front.csv").read_bytes()


DISORDERS = {
    "a record twice": lambda lines: [*lines[:6], lines[5], *lines[6:]],
    "the record before it twice": lambda lines: [*lines[:5], lines[4], *lines[5:]],
    "two records later again": lambda lines: [*lines[:8], *lines[4:6], *lines[8:]],
    "two records in the other order": lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]],
    "a record that is gone": lambda lines: [*lines[:6], *lines[7:]],
    "two records that are gone": lambda lines: [*lines[:5], *lines[7:]],
    "the whole journal twice": lambda lines: lines + lines,
}


@pytest.mark.parametrize("disorder", DISORDERS)
def test_records_out_of_order_are_named_by_line_and_repaired_to_the_same_front(small, whole, run, disorder):
    write_lines(run, DISORDERS[disorder](lines_of(run)))
    for read in (read_evaluations, lambda run: resume(small, run), lambda run: solve(small, run, "macs=0.9"), report):
        with pytest.raises(JournalError, match=r"journal.jsonl:\d+: expected record \d+, got record \d+.*--repair"):
            read(run)
    (run / "front.csv").unlink()
    resume(small, run, repair=True)
    assert_as_whole(run, whole)
    assert len({e.candidate for e in read_evaluations(run)}) == len({e.candidate for e in read_evaluations(whole)})


def unnumbered(run):
    """The journal as an earlier version wrote it."""
    records = read_journal(journal_of(run))
    return [encode({**record, "version": 1} if record["kind"] == "run" else record) for record in records]


@pytest.mark.parametrize("kind", [b'"kind":"ask"', b'"kind":"tell"'])
def test_a_record_twice_in_a_journal_of_an_earlier_version_is_named_and_repaired(small, whole, run, kind):
    lines = unnumbered(run)
    place = max(index for index, line in enumerate(lines) if kind in line)
    write_lines(run, [*lines[: place + 1], *lines[place:]])
    with pytest.raises(JournalError, match=rf"journal.jsonl:{place + 2}: expected a record of a run.*there twice"):
        resume(small, run)
    (run / "front.csv").unlink()
    resume(small, run, repair=True)
    assert_as_whole(run, whole)


def test_a_journal_of_an_earlier_version_is_resumed_and_stays_one(small, whole, run):
    write_lines(run, unnumbered(run)[:9])
    resume(small, run)
    assert_as_whole(run, whole)
    assert b'"line"' not in journal_of(run).read_bytes()


FORMS = {
    "line ends of Windows": lambda content: content.replace(b"\n", b"\r\n"),
    "a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "both": lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
    "no last line end": lambda content: content[:-1],
    "an empty line more": lambda content: content + b"\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_what_editors_and_version_control_do_to_a_journal_is_read_over(small, whole, run, form):
    content = b"".join(lines_of(run)[:10])
    journal_of(run).write_bytes(FORMS[form](content))
    before = [e.candidate for e in read_evaluations(run)]
    repair_journal(journal_of(run))
    assert [e.candidate for e in read_evaluations(run)] == before
    resume(small, run)
    assert_as_whole(run, whole)
    assert read_run(journal_of(run))[-1]["kind"] == "end"


@pytest.mark.parametrize("content", [None, b"", b'{"crc":"'])
def test_a_run_that_begins_anew_says_so(small, whole, run, caplog, content):
    journal_of(run).unlink()
    if content is not None:
        journal_of(run).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        resume(small, run)
    assert "journal.jsonl has no measurements: the run starts again" in caplog.text
    assert_as_whole(run, whole)


def test_a_fork_of_an_empty_journal_says_that_nothing_is_used(small, whole, run, caplog, tmp_path):
    journal_of(run).write_bytes(b"")
    search(small, tmp_path / "fork", answers=run)
    assert "no evaluation of the earlier run is used:" in caplog.text
    assert_as_whole(tmp_path / "fork", whole)


MALFORMED = {
    "no header": (0, None),
    "an unknown kind": (3, {"kind": "shout"}),
    "no kind": (3, {"n": 1}),
    "an ask without candidates": (3, {"kind": "ask", "n": 1}),
    "levels that are no numbers": (3, {"kind": "ask", "n": 1, "candidates": [["a", 0.5, 1, 1]]}),
    "an evaluation without values": (3, {"kind": "answer", "evaluation": {"levels": [0, 0, 0, 0]}}),
    "no object": (3, [1, 2]),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_records_of_another_form_with_a_right_checksum_are_named_by_line(small, run, what):
    index, record = MALFORMED[what]
    lines = lines_of(run)
    new = [] if record is None else [encode({**record, "line": index + 1} if isinstance(record, dict) else record)]
    write_lines(run, [*lines[:index], *new, *lines[index + 1 :]])
    for command in (read_evaluations, lambda run: resume(small, run), lambda run: export_study(run, "sqlite://")):
        with pytest.raises(JournalError, match=rf"journal.jsonl:{index + 1}: "):
            command(run)


def change_number(content):
    """The same with one digit of a number made another one."""
    places = (i for i in range(len(content) // 2, len(content)) if content[i : i + 1].isdigit())
    place = next(places, 0)
    if not place:
        return content
    other = b"7" if content[place : place + 1] != b"7" else b"3"
    return content[:place] + other + content[place + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "binary": lambda content: bytes(range(128, 256)) * 4,
    "no mapping": lambda content: b"[1, 2]\n",
    "null": lambda content: b"null\n",
    "no keys": lambda content: b"{}\n",
    "nested deeply": lambda content: b"[" * 100_000,
    "a digit": change_number,
}


def damages_of(run, names):
    """Damages each of the files in each way, one at a time, and says which it is."""
    for name in names:
        before = (run / name).read_bytes()
        for damage, damaged in DAMAGES.items():
            after = damaged(before)
            if after != before:
                (run / name).write_bytes(after)
                yield name, damage
        (run / name).write_bytes(before)


def test_whatever_reads_a_damaged_file_names_it(small, run, tmp_path):
    for name, _ in damages_of(run, FILES):
        for command in (read_front, report):
            try:
                command(run)
            except AutopruneError as error:
                assert name in str(error)  # noqa: PT017  # it may also not be read at all


def test_a_damaged_front_is_refused_by_all_that_read_it(small, run):
    for name, _ in damages_of(run, ["front.json"]):
        for command in (read_front, report, lambda run: export(small, run, "macs<=1", run / "small")):
            with pytest.raises(RunDamaged, match=rf"{name}: .* Write it again with: autoprune resume"):
                command(run)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_resumed_run_writes_damaged_files_again(small, whole, run):
    for name, _ in damages_of(run, FILES):
        resume(small, run)
        assert_as_whole(run, whole)
        assert read_front(run) == read_front(whole)
        if name != "job.yaml":
            assert report(run).exists()


def test_edited_numbers_of_every_file_a_report_shows_are_refused(run):
    for name in SHOWN:
        before = (run / name).read_bytes()
        (run / name).write_bytes(change_number(before))
        with pytest.raises(RunDamaged, match=rf"{name}: its content was changed: it does not have its checksum"):
            report(run)
        (run / name).write_bytes(before)


def test_files_of_another_run_are_refused(small, run, tmp_path):
    from dataclasses import replace

    from autoprune.core.levels import LevelRule

    search(replace(small, rules=(LevelRule("*", (0.25,)),)), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "space.json", run / "space.json")
    with pytest.raises(RunDamaged, match=r"space.json: it has another search space than journal.jsonl"):
        report(run)


def test_files_of_earlier_versions_have_no_checksum_and_are_read(run, whole):
    before = report(run).read_bytes()
    for name in SHOWN:
        data = json.loads((run / name).read_text())
        del data["checksum"]
        (run / name).write_text(json.dumps(data))
    assert read_front(run) == read_front(whole)
    assert report(run).read_bytes() == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_damage_to_a_journal_gives_another_front_or_an_error_that_was_not_foreseen(small, whole, tmp_path):
    rng = random.Random(0)
    lines = lines_of(whole)
    for number in range(150):
        run = shutil.copytree(whole, tmp_path / str(number))
        write_lines(run, changed_at_random(lines, rng))
        for repair in (False, True):
            try:
                resume(small, run, repair=repair)
            except JournalError as error:
                assert "journal.jsonl:" in str(error)  # noqa: PT017  # what else comes of it is looked at below
            else:
                assert_as_whole(run, whole)
                break
        else:
            assert lines_of(run)[0] != lines[0]  # what run it is cannot be known
        shutil.rmtree(run)


def changed_at_random(lines, rng):
    lines = list(lines)
    for _ in range(rng.randint(1, 3)):
        place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        act = rng.choice(["cut", "flip", "copy", "swap", "drop", "move"])
        line = lines[place]
        if act == "cut":
            lines[place] = line[: rng.randrange(len(line))]
        elif act == "flip":
            where = rng.randrange(len(line))
            lines[place] = line[:where] + bytes([line[where] ^ (1 << rng.randrange(8))]) + line[where + 1 :]
        elif act == "copy":
            lines.insert(other, line)
        elif act == "swap":
            lines[place], lines[other] = lines[other], lines[place]
        elif act == "drop" and len(lines) > 1:
            del lines[place]
        else:
            lines.insert(other, lines.pop(place))
    return lines


def test_a_job_that_is_no_job_is_named(run):
    for content in (b"", b"\xff\xfe\x00", b"[1]", b"a: ["):
        (run / "job.yaml").write_bytes(content)
        with pytest.raises(AutopruneError, match=r"job.yaml"):
            config.load_run(run)
