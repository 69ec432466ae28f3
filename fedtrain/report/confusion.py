"""Which classes a model takes for which: the test records of all sites, by class and prediction."""

import json
from pathlib import Path
from typing import Any, Final

from rich.console import RenderableType

from fedtrain.errors import RunDirectoryError
from fedtrain.report.tables import make_table

FILE: Final = "confusion.json"
_WHOLE: Final = 12  # classes of which the whole matrix fits a screen
_PAIRS: Final = 10


def load_confusion(path: Path) -> dict[str, Any] | None:
    """Return what a run directory holds of its last evaluation; None where it has none.

    Raises:
        RunDirectoryError: The file is damaged.
    """
    file = path / FILE
    if not file.is_file():
        return None
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        size = len(tree["classes"])
        sound = len(tree["test"]) == size and all(len(row) == size for row in tree["test"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"{file}: damaged ({type(error).__name__}); restore it") from error
    if not sound:
        raise RunDirectoryError(f"{file}: damaged (no square matrix); restore it")
    return dict(tree)


def render_confusion(confusion: dict[str, Any]) -> RenderableType:
    """Return the matrix, or of many classes the pairs that are most often confused."""
    names, rows = [str(name) for name in confusion["classes"]], confusion["test"]
    where = f"test records of all sites, round {confusion['round']}"
    if len(names) <= _WHOLE:
        cells = [(name, *map(str, row)) for name, row in zip(names, rows, strict=True)]
        title = f"By class (rows) and prediction (columns): {where}"
        return make_table(("class", *names), cells, title=title)
    wrong = [
        (count, names[i], names[j])
        for i, row in enumerate(rows)
        for j, count in enumerate(row)
        if i != j and count
    ]
    wrong.sort(key=lambda pair: -pair[0])
    cells = [(true, taken, str(count)) for count, true, taken in wrong[:_PAIRS]]
    title = f"Most often confused, {len(cells)} of {len(wrong)} pairs: {where}"
    return make_table(("class", "taken for", "records"), cells, title=title, texts=2)
