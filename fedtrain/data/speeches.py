"""One text file by speaker, as windows of tokens with the next token as label.

A token is a character, or where a vocabulary is given what `byte_pairs` makes of it.

A speech is a block of lines after `NAME:`; blocks are parted by an empty line. A speaker's
speeches are joined and cut into windows that do not overlap: so no token is in two records,
which a guarantee for one record and honest test data both need.

Shapes: n windows, l = `data.sequence_length`.
"""

import logging
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.config import Config
from fedtrain.data.byte_pairs import UNKNOWN, BytePairs, learn_vocabulary
from fedtrain.data.columns import Category
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records
from fedtrain.errors import ConfigError, DataError

logger = logging.getLogger("fedtrain.data")

_CHARACTERS: Final = "\n" + "".join(chr(code) for code in range(32, 127))
VOCABULARY: Final = (*_CHARACTERS, UNKNOWN)
_SPEAKER: Final = re.compile(r"([^\n:]{1,60}):[ \t]*(?:\n|$)")


def load_speeches(
    path: Path, sequence_length: int, *, vocabulary: tuple[str, ...] | None = None
) -> Records:
    """Read a text and cut it into windows.

    Args:
        path: A UTF-8 text file.
        sequence_length: Tokens before the one to predict.
        vocabulary: Byte-pair tokens, public; None: the characters of `VOCABULARY`.

    Returns:
        Features `(n, l)`, ids into the vocabulary (uint8, of byte pairs int64), labels the id that
        follows, sites by speaker where the text has any. Speakers with less than one window are
        left out.

    Raises:
        ConfigError: The vocabulary tells nothing apart.
        DataError: The file cannot be read or has less than one window.
    """
    encode = encode_text if vocabulary is None else BytePairs(vocabulary).encode
    speeches = read_speeches(path)
    windows = {
        name: _cut_windows(encode(speech), sequence_length) for name, speech in speeches.items()
    }
    kept = {name: window for name, window in windows.items() if len(window)}
    if not kept:
        raise DataError(
            f"{path.name} has no speech of {sequence_length + 1} characters; lower"
            " data.sequence_length"
        )
    if len(kept) < len(windows):
        logger.warning("event=short_speakers_left_out speakers=%d", len(windows) - len(kept))
    return _build_records(kept, vocabulary or VOCABULARY)


def read_speeches(path: Path) -> dict[str, str]:
    """Return the text of each speaker; the whole text under '' where there is no speaker.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check data.path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text; convert it") from error
    return _split_by_speaker(text)


def learn_tokens(config: Config, *, size: int, min_count: int) -> tuple[str, ...]:
    """Learn a byte-pair vocabulary of a scenario's text from sums of counts over its sites.

    Args:
        config: Of `data.source = "text"`.
        size: Tokens wanted.
        min_count: Fewest times that a pair must be there, over all sites.

    Raises:
        ConfigError: The scenario has no text, or protects what would be counted.
        DataError: The file cannot be read.
    """
    if config.data.source != "text" or config.data.path is None:
        raise ConfigError(
            f"data.source = {config.data.source!r} has no text to learn tokens of; name a scenario"
            " with data.source = 'text' and data.path"
        )
    if config.privacy.unit != "none":
        raise ConfigError(
            f"privacy.unit = '{config.privacy.unit}': counts of pairs would leave unprotected; set"
            " data.vocabulary to a public one, or leave it out for characters"
        )
    speeches = read_speeches(Path(config.data.path).expanduser())
    return learn_vocabulary(speeches, VOCABULARY, size=size, min_count=min_count)


def encode_text(text: str) -> NDArray[np.uint8]:
    """Return the id of each character in `VOCABULARY`, `(len(text),)`."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    lookup = np.full(128, len(_CHARACTERS), dtype=np.uint8)
    lookup[[ord(character) for character in _CHARACTERS]] = np.arange(len(_CHARACTERS))
    return lookup[np.minimum(codes, 127)]  # 127 itself is not printable


def _split_by_speaker(text: str) -> dict[str, str]:
    """Return each speaker's speeches, joined; the whole text under '' where there is no speaker."""
    speeches: dict[str, list[str]] = {}
    for block in re.split(r"\n{2,}", text.replace("\r\n", "\n").strip("\n")):
        match = _SPEAKER.match(block)
        if match:
            speeches.setdefault(match[1].strip(), []).append(block[match.end() :])
    if not speeches:
        return {"": text}
    return {name: "\n".join(speeches[name]) for name in sorted(speeches)}


def _cut_windows(ids: NDArray[Any], sequence_length: int) -> NDArray[Any]:
    width = sequence_length + 1
    return ids[: len(ids) // width * width].reshape(-1, width)


def _build_records(windows: dict[str, NDArray[Any]], vocabulary: tuple[str, ...]) -> Records:
    every = np.concatenate(list(windows.values()))
    names = tuple(windows)
    codes = np.repeat(np.arange(len(names), dtype=np.int32), [len(w) for w in windows.values()])
    return Records(
        features=every[:, :-1],
        labels=Category(every[:, -1].astype(np.int32), vocabulary),
        public=PublicConstants(
            input_shape=(every.shape[1] - 1,), label_names=vocabulary, is_discrete=True
        ),
        sites=None if names == ("",) else Category(codes, names),
    )
