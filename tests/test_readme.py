"""README says what is there: its commands, links, files and the tests that it names."""

import argparse
import re
from pathlib import Path

import pytest

from fedtrain.cli import build_parser
from fedtrain.scenarios import list_scenarios

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL))
COMMANDS = sorted(set(re.findall(r"^(?:\$ )?fedtrain ([a-z]+)(.*)$", BLOCKS, flags=re.MULTILINE)))
LINKS = sorted(set(re.findall(r"\]\((?!https?:|#)([^)]+)\)", TEXT)))
FILES = sorted(set(re.findall(r"`((?:fedtrain|server|clients|simulations)/[\w/.]+\.py)`", TEXT)))
# Names of tests in the tables: `both_shares_of_one_peer_are_never_revealed`.
NAMED = sorted(set(re.findall(r"`([a-z]+(?:_[a-z]+){3,})`", TEXT)))


def parsers_of(parser, words):
    """Return the parser that the words lead to, and all those below it."""
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not nested:
        return [parser]
    named = [nested[0].choices[word] for word in words if word in nested[0].choices]
    return [parser, *(p for choice in named for p in parsers_of(choice, words))]


@pytest.mark.parametrize(("name", "rest"), COMMANDS, ids=lambda text: text.strip()[:40])
def test_command_in_the_readme_exists_with_its_options(name, rest):
    _, subparsers = build_parser()
    rest = rest.split("#")[0]
    parsers = parsers_of(subparsers.choices[name], re.findall(r"[a-z-]+", rest))
    known = {option for parser in parsers for option in parser._option_string_actions}
    used = set(re.findall(r"(?<![\w-])--[a-z-]+", rest))
    assert used <= known, used - known


def test_option_that_is_not_there_would_be_noticed():
    _, subparsers = build_parser()
    parsers = parsers_of(subparsers.choices["server"], ["run", "study.toml"])
    known = {option for parser in parsers for option in parser._option_string_actions}
    assert "--wait" in known
    assert "--no-such-option" not in known


@pytest.mark.parametrize("link", LINKS)
def test_link_in_the_readme_leads_somewhere(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("file", FILES)
def test_file_that_the_readme_follows_exists(file):
    assert (ROOT / file).is_file()


@pytest.mark.parametrize("name", NAMED)
def test_test_that_the_readme_names_exists(name):
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert re.search(rf"def test_\w*{name}", sources), name


def test_scenarios_of_the_readme_are_those_that_ship():
    table = TEXT[TEXT.index("## Scenarios") : TEXT.index("## Your own data")]
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", table, flags=re.MULTILINE))
    assert rows == set(list_scenarios())


def test_first_lines_are_the_two_commands():
    lines = TEXT.splitlines()[2:6]
    assert lines[0] == lines[3] == "```"
    assert lines[1].startswith("make demo ")
    assert lines[2].startswith("make test ")
