"""The glossary: one line for each word, in alphabetical order, and none twice."""

import re
from pathlib import Path

import pytest

LINES = (Path(__file__).parent.parent / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
ENTRIES = [line for line in LINES if line.startswith("- ")]
WORDS = [line.removeprefix("- **").partition("**")[0] for line in ENTRIES]


def test_the_words_are_in_alphabetical_order_and_none_is_there_twice():
    assert sorted(set(WORDS), key=str.lower) == WORDS


@pytest.mark.parametrize("line", ENTRIES)
def test_every_word_has_one_line_that_is_a_sentence(line):
    assert re.fullmatch(r"- \*\*[\w ]+\*\*: .{20,}\.", line)
    assert len(line) <= 140


def test_nothing_but_entries_follows_the_introduction():
    first = LINES.index(ENTRIES[0])
    assert LINES[first:] == ENTRIES


@pytest.mark.parametrize("word", ["member", "damage", "unit", "level", "candidate", "front", "bank", "deterministic"])
def test_the_words_of_the_contracts_are_there(word):
    assert word in WORDS
