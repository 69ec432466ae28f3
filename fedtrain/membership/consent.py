"""A question before something that cannot be taken back is done."""

import sys

from fedtrain.errors import ConfigError


def confirm(question: str, *, yes: bool, option: str) -> None:
    """Ask on standard error, read the answer from standard input.

    Args:
        question: What is asked.
        yes: Whether the answer was given on the command line: then nothing is asked.
        option: What a script adds in place of an answer; part of the error.

    Raises:
        ConfigError: The answer is not yes.
    """
    if yes:
        return
    sys.stderr.write(f"{question} [yes/no] ")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip().lower()
    if not sys.stdin.isatty():
        sys.stderr.write("\n")  # nobody's Enter ended the line
    if answer not in ("y", "yes"):
        raise ConfigError(
            f"the answer {answer[:20]!r} is not yes: nothing was changed; a script adds {option}"
        )
