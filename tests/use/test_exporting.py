"""`fedtrain export`: a file is in place only where it computes what the original does."""

import json

import numpy as np
import pytest
import safetensors
import torch

from fedtrain.data.preparation import Preparation
from fedtrain.errors import AuditError, ConfigError
from fedtrain.use import exporting
from fedtrain.use.exporting import FORMATS, export_model, make_trial_records
from tests.use.conftest import make_digits, write_run


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["logistic", "cnn_groupnorm", "cnn_small"])
def test_exported_model_computes_the_same(tmp_path, format, name):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    model = make_digits(tmp_path / "run", name=name)
    exported = export_model(model, format, tmp_path / f"model.{format}")
    assert exported.path.stat().st_size == exported.size
    assert exported.difference <= 1e-5
    assert exported.checked == 46


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_model_of_text_is_exported(tmp_path, format, name):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    preparation = Preparation("none", (12,), tuple("abcdef"), is_discrete=True)
    model = write_run(tmp_path / "run", {"model": {"name": name}}, preparation)
    assert export_model(model, format, tmp_path / "model").difference <= 1e-5


def test_onnx_runs_without_fedtrain(digits, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    path = export_model(digits, "onnx", tmp_path / "model.onnx").path
    session = runtime.InferenceSession(str(path))
    batch = np.random.default_rng(1).random((5, 1, 8, 8)).astype(np.float32)
    (outputs,) = session.run(["outputs"], {"inputs": batch})
    assert np.allclose(outputs, digits.compute_outputs(batch), atol=1e-5)
    described = json.loads(session.get_modelmeta().custom_metadata_map["fedtrain"])
    assert described["label_names"] == list("0123456789")


def test_safetensors_hold_parameters_and_description(digits, tmp_path):
    path = export_model(digits, "safetensors", tmp_path / "model.safetensors").path
    with safetensors.safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(digits.module.state_dict())
        assert json.loads(file.metadata()["fedtrain"])["preparation"]["kind"] == "bounds"


def test_export_that_differs_is_not_put_in_place(digits, tmp_path, monkeypatch):
    def write_other(model, path):
        changed = {n: t + 0.01 for n, t in model.module.state_dict().items()}
        other = exporting.build_described_model(
            model.description["architecture"], torch.Generator()
        )
        other.load_state_dict(changed)
        with exporting._exporting("torchscript"):
            torch.jit.save(torch.jit.trace(other.eval(), torch.zeros(2, 1, 8, 8)), str(path))

    monkeypatch.setitem(exporting._WRITERS, "torchscript", write_other)
    with pytest.raises(AuditError, match="outputs differ by"):
        export_model(digits, "torchscript", tmp_path / "model.pt")
    assert not list(tmp_path.glob("model.pt*"))


def test_trial_records_have_several_sizes_and_extremes(digits):
    batches = list(make_trial_records(digits))
    assert {len(batch) for batch in batches} == {1, 2, 33}
    assert max(np.abs(batch).max() for batch in batches) == 1e4


def test_missing_extra_is_named(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedtrain\[onnx\]'"):
        export_model(digits, "onnx", tmp_path / "model.onnx")


def test_folder_that_is_not_there_is_refused(digits, tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        export_model(digits, "safetensors", tmp_path / "absent" / "model.safetensors")
