"""The command line frame: one command, one-line errors, fast start."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from fedtrain import cli
from fedtrain.errors import AuditError, ConfigError, RunDirectoryError

HEAVY = ("torch", "flwr", "opacus", "matplotlib", "sklearn", "polars", "dp_accounting", "scipy")
SEE_SHOW = " (see fedtrain show --help)\n"
COMMANDS = ("init", "config", "runs", "show", "compare")


def run_python(
    code: str, *, cwd: Path, stdout: int = subprocess.PIPE
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, stdout=stdout, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def guard(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that raises an error inside the outermost guard: (exit code, stderr)."""

    def call(error: BaseException, *, debug: bool = False) -> tuple[int, str]:
        def fail() -> int:
            raise error

        code = cli._guard(fail, debug=debug)
        return code, capsys.readouterr().err

    return call


def test_help_lists_every_command_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    _, subparsers = cli.build_parser()
    assert set(COMMANDS) <= set(subparsers.choices)
    assert all(f"\n  {name} " in text for name in subparsers.choices)
    assert "Example:\n  fedtrain init" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_prints(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: fedtrain {command}")


def list_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from list_parsers(child)


def test_help_of_no_option_says_its_default_twice() -> None:
    parsers = list(list_parsers(cli.build_parser()[0]))
    twice = re.compile(r"\(default[^)]*\)\s+\(default")
    assert len(parsers) > 60
    assert not [parser.prog for parser in parsers if twice.search(parser.format_help())]


@pytest.mark.parametrize(
    ("command", "default"),
    [("init", "digits"), ("runs", "runs"), ("compare", "comparison.png")],
)
def test_help_names_defaults(
    command: str, default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main([command, "--help"])
    assert f"(default: {default})" in " ".join(capsys.readouterr().out.split())


def test_version_is_the_distribution_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fedtrain {metadata.version('fedtrain')}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "fedtrain: give a command, e.g. fedtrain simulate digits (see fedtrain --help)\n"),
        (["shw"], "fedtrain: unknown command 'shw'; did you mean show? (see fedtrain --help)\n"),
        (["--loud"], "fedtrain: unknown option '--loud' (see fedtrain --help)\n"),
        (
            ["show", "x", "--jsn"],
            "fedtrain show: unknown argument '--jsn'; did you mean --json?" + SEE_SHOW,
        ),
    ],
)
def test_usage_error_is_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(
    "argv", [["show"], ["compare", "a"], ["init"], ["config"], ["config", "a", "--schema"]]
)
def test_missing_or_clashing_argument_is_one_line(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert output.err.startswith(f"fedtrain {argv[0]}: ")
    assert output.err.endswith(f" (see fedtrain {argv[0]} --help)\n")


@pytest.mark.parametrize("kind", [ConfigError, RunDirectoryError, AuditError])
def test_error_of_ours_is_one_line_with_its_exit_code(
    kind: type[Any], guard: Callable[..., tuple[int, str]]
) -> None:
    assert guard(kind("a = 1 is\nabove 0; lower it")) == (
        kind.exit_code,
        "fedtrain: a = 1 is above 0; lower it\n",
    )


def test_interrupt_exits_with_130(guard: Callable[..., tuple[int, str]]) -> None:
    assert guard(KeyboardInterrupt()) == (130, "fedtrain: interrupted\n")


def test_unexpected_error_names_its_type_and_the_cure(
    guard: Callable[..., tuple[int, str]],
) -> None:
    code, text = guard(ZeroDivisionError("by zero"))
    assert code == 70
    assert text == (
        "fedtrain: unexpected ZeroDivisionError: by zero;"
        " run again with --debug for the traceback\n"
    )


def test_broken_pipe_that_is_not_the_output_is_not_hidden(
    guard: Callable[..., tuple[int, str]],
) -> None:
    code, text = guard(BrokenPipeError("a worker's pipe"))
    assert code == 70
    assert "BrokenPipeError" in text


def test_debug_prints_the_traceback(guard: Callable[..., tuple[int, str]]) -> None:
    code, text = guard(ConfigError("a = 1"), debug=True)
    assert code == 2
    assert "Traceback" in text
    assert text.endswith("fedtrain: a = 1\n")


def test_debug_is_taken_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--debug", "show", str(tmp_path)], ["show", str(tmp_path), "--debug"]):
        assert cli.main(argv) == 3
        assert "Traceback" in capsys.readouterr().err


def test_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from fedtrain.cli import main; sys.exit(main(['config', '--schema']))"
    try:
        result = run_python(code, cwd=tmp_path, stdout=write)
    finally:
        os.close(write)
    assert result.returncode == 141
    assert result.stderr == ""


@pytest.mark.parametrize("argv", [["--help"], ["config", "--schema"], ["init", "--list"], ["runs"]])
def test_start_imports_nothing_heavy(argv: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; from fedtrain.cli import main; main({argv!r});"
        f"print('heavy:', *(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert run_python(code, cwd=tmp_path).stdout.splitlines()[-1] == "heavy:"


def test_python_m_is_the_same_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedtrain", "show", "nothing"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 3
    assert result.stderr == (
        "fedtrain: nothing: no such run; fedtrain runs [DIR] lists what there is\n"
    )
