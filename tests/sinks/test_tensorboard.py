"""Runs as TensorBoard event files."""

import sys

import pytest

from fedtrain import cli
from fedtrain.errors import ConfigError
from fedtrain.sinks.tensorboard import TensorBoardSink, name_tag

MODULE = "tensorboard.backend.event_processing.event_accumulator"


def read(folder):
    events = pytest.importorskip(MODULE).EventAccumulator(str(folder))
    return events.Reload()


def test_rounds_are_steps(finished, tmp_path):
    pytest.importorskip("tensorboard")
    assert cli.main(["sink", "tensorboard", str(finished.path), "--out", str(tmp_path / "t")]) == 0
    events = read(tmp_path / "t")
    series = [(event.step, event.value) for event in events.Scalars("test/accuracy")]
    wanted = finished.get_series("test_accuracy")
    assert [step for step, _ in series] == [number for number, _ in wanted]
    assert [value for _, value in series] == pytest.approx([value for _, value in wanted])


def test_text_holds_config_and_privacy(finished, tmp_path):
    pytest.importorskip("tensorboard")
    sink = TensorBoardSink.open(tmp_path, finished)
    sink.send(finished)
    sink.close(finished)
    texts = {tag.split("/")[0] for tag in read(tmp_path).Tags()["tensors"]}
    assert {"config", "privacy", "config_digest", "data_fingerprint"} <= texts


def test_rounds_sent_already_are_not_sent_again(change_state, tmp_path):
    pytest.importorskip("tensorboard")
    sink = TensorBoardSink.open(tmp_path / "t", change_state(round=10))
    assert sink.send(change_state(round=10)) == 10
    assert sink.send(change_state(round=15)) == 15
    sink.close(change_state())
    steps = [event.step for event in read(tmp_path / "t").Scalars("cost/seconds")]
    assert steps == list(range(1, 16))


def test_folder_that_has_events_is_refused(finished, tmp_path):
    pytest.importorskip("tensorboard")
    TensorBoardSink.open(tmp_path, finished).close(finished)
    with pytest.raises(ConfigError, match="holds events already"):
        TensorBoardSink.open(tmp_path, finished)


def test_missing_tensorboard_names_its_extra(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedtrain\[tensorboard\]'"):
        TensorBoardSink.open(tmp_path, finished)


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        ("test_accuracy", "test/accuracy"),
        ("epsilon", "privacy/epsilon"),
        ("site_epsilon", "privacy/site_epsilon"),
        ("bytes_up", "cost/bytes_up"),
        ("cohort", "sums/cohort"),
        ("group sex=1", "other/group sex_1"),
    ],
)
def test_tag_is_grouped(key, tag):
    assert name_tag(key) == tag
