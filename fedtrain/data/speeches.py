"""One text file by speaker, as windows of characters with the next character as label.

A speech is a block of lines after `NAME:`; blocks are parted by an empty line. A speaker's
speeches are joined and cut into windows that do not overlap: so no character is in two records,
which a guarantee for one record and honest test data both need.

Shapes: n windows, l = `data.sequence_length`.
"""

import logging
import re
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtrain.data.columns import Category
from fedtrain.data.public import PublicConstants
from fedtrain.data.records import Records
from fedtrain.errors import DataError

logger = logging.getLogger("fedtrain.data")

_CHARACTERS: Final = "\n" + "".join(chr(code) for code in range(32, 127))
VOCABULARY: Final = (*_CHARACTERS, "<unknown>")
_SPEAKER: Final = re.compile(r"([^\n:]{1,60}):[ \t]*(?:\n|$)")


def load_speeches(path: Path, sequence_length: int) -> Records:
    """Read a text and cut it into windows.

    Args:
        path: A UTF-8 text file.
        sequence_length: Characters before the one to predict.

    Returns:
        Features uint8 ids `(n, l)` into `VOCABULARY`, labels the id that follows, sites by
        speaker where the text has any. Speakers with less than one window are left out.

    Raises:
        DataError: The file cannot be read or has less than one window.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check data.path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text; convert it") from error
    speeches = _split_by_speaker(text)
    windows = {name: _cut_windows(speech, sequence_length) for name, speech in speeches.items()}
    kept = {name: window for name, window in windows.items() if len(window)}
    if not kept:
        raise DataError(
            f"{path.name} has no speech of {sequence_length + 1} characters; lower"
            " data.sequence_length"
        )
    if len(kept) < len(windows):
        logger.warning("event=short_speakers_left_out speakers=%d", len(windows) - len(kept))
    return _build_records(kept)


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


def _cut_windows(speech: str, sequence_length: int) -> NDArray[np.uint8]:
    ids = encode_text(speech)
    width = sequence_length + 1
    return ids[: len(ids) // width * width].reshape(-1, width)


def _build_records(windows: dict[str, NDArray[np.uint8]]) -> Records:
    every = np.concatenate(list(windows.values()))
    names = tuple(windows)
    codes = np.repeat(np.arange(len(names), dtype=np.int32), [len(w) for w in windows.values()])
    return Records(
        features=every[:, :-1],
        labels=Category(every[:, -1].astype(np.int32), VOCABULARY),
        public=PublicConstants(
            input_shape=(every.shape[1] - 1,), label_names=VOCABULARY, is_discrete=True
        ),
        sites=None if names == ("",) else Category(codes, names),
    )
