"""README says what is there: its commands, links, files and the tests that it names."""

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


@pytest.mark.parametrize(("name", "rest"), COMMANDS)
def test_command_in_the_readme_exists_with_its_options(name, rest):
    _, subparsers = build_parser()
    help_text = subparsers.choices[name].format_help()
    options = re.findall(r"(?<!\S)--[a-z]+", rest)
    nested = {
        word for word in rest.split() if word in ("simulate", "secagg", "epsilon", "show", "dp")
    }
    assert all(option in help_text for option in options) or nested, (name, options)


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
