import io
import json

import pytest

from fedtrain.errors import RunDirectoryError
from fedtrain.report.confusion import load_confusion, render_confusion
from fedtrain.report.tables import make_console


def render(confusion):
    stream = io.StringIO()
    make_console(stream).print(render_confusion(confusion))
    return stream.getvalue()


def test_few_classes_are_shown_as_a_matrix():
    text = render({"round": 3, "classes": ["no", "yes"], "test": [[40, 2], [5, 31]]})
    assert "round 3" in text
    assert ["yes", "5", "31"] in [line.split() for line in text.splitlines()]


def test_many_classes_are_shown_as_the_most_confused_pairs():
    test = [[0] * 20 for _ in range(20)]
    test[3][7], test[1][1] = 9, 50
    text = render({"round": 1, "classes": [f"c{i}" for i in range(20)], "test": test})
    assert ["c3", "c7", "9"] in [line.split() for line in text.splitlines()]
    assert "50" not in text


@pytest.mark.parametrize("content", ["{", "[]", '{"classes": ["a"], "test": [[1, 2]], "round": 1}'])
def test_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "confusion.json").write_text(content)
    with pytest.raises(RunDirectoryError, match="damaged"):
        load_confusion(tmp_path)


def test_run_without_a_matrix_has_none(tmp_path):
    assert load_confusion(tmp_path) is None
    (tmp_path / "confusion.json").write_text(
        json.dumps({"round": 1, "classes": ["a"], "test": [[1]]})
    )
    assert load_confusion(tmp_path)["round"] == 1
