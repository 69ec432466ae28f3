"""A run starts from a file whose bytes are known, or says in one line why not."""

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fedtrain.config import build_config
from fedtrain.errors import AuditError, ConfigError, PeerError
from fedtrain.models.start import build_site_model, build_start_model
from fedtrain.models.start_file import resolve_start
from fedtrain.protocol import describe_publicly

SIZES = {"input_shape": (1, 8, 8), "classes": 10}


def build(**model):
    return build_start_model(build_config({"model": model}), **SIZES)


@pytest.fixture
def public():
    return build_start_model(build_config({"run": {"seed": 7}}), **SIZES)


@pytest.fixture
def file(public, tmp_path):
    path = tmp_path / "public.safetensors"
    path.write_bytes(safetensors.torch.save(public.state_dict()))
    return path


def test_parameters_are_those_of_the_file(public, file):
    model = build(start_from=str(file))
    for name, tensor in public.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_torchscript_gives_its_tensors(public, tmp_path):
    path = tmp_path / "public.pt"
    with pytest.warns(DeprecationWarning, match="deprecated"):
        torch.jit.trace(public, torch.zeros(2, 1, 8, 8)).save(str(path))
    assert torch.equal(build(start_from=str(path)).output.weight, public.output.weight)


class Loading(nn.Linear):
    """Has code that TorchScript runs as the file is loaded."""

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor]) -> None:
        print("run")
        self.weight, self.bias = state


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_that_runs_code_as_it_is_loaded_is_refused(tmp_path, capfd):
    torch.jit.script(Loading(64, 10)).save(str(tmp_path / "public.pt"))
    with pytest.raises(ConfigError, match=r"runs code as it is loaded \(__setstate__\)"):
        build(start_from=str(tmp_path / "public.pt"))
    assert "run" not in capfd.readouterr().out


def test_run_directory_is_its_model(file, tmp_path):
    file.rename(tmp_path / "model.safetensors")
    assert build(start_from=str(tmp_path)).output.weight.any()


def test_layer_of_another_shape_is_drawn_anew_where_it_is_listed(public, file):
    fresh = build_start_model(build_config({}), input_shape=(1, 8, 8), classes=4)
    config = build_config({"model": {"start_from": str(file), "reinitialise": ["output*"]}})
    model = build_start_model(config, input_shape=(1, 8, 8), classes=4)
    assert torch.equal(model.linear1.weight, public.linear1.weight)
    assert torch.equal(model.output.weight, fresh.output.weight)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"hidden": [16]}, r"'linear1.bias' has shape \(32,\), the model's has \(16,\)"),
        ({"hidden": [32, 32]}, "the file has no 'linear2.bias'; list it in model.reinitialise"),
        ({"hidden": []}, "the model has no 'linear1.bias'"),
        ({"reinitialise": ["conv*"]}, "model.reinitialise: 'conv\\*' fits nothing"),
    ],
)
def test_model_that_does_not_fit_is_refused(file, keys, text):
    with pytest.raises(ConfigError, match=text):
        build(start_from=str(file), **keys)


def test_pickled_state_is_not_read(public, tmp_path):
    torch.save(public.state_dict(), tmp_path / "public.pt")
    with pytest.raises(ConfigError, match="a pickled state is not read"):
        build(start_from=str(tmp_path / "public.pt"))


def test_other_bytes_than_the_config_says_are_refused(file):
    section = resolve_start(build_config({"model": {"start_from": str(file)}}).model)
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(AuditError, match="restore the file"):
        build(start_from=str(file), start_digest=section.start_digest)


def test_resolving_twice_changes_nothing_and_reads_once(file):
    section = resolve_start(build_config({"model": {"start_from": str(file)}}).model)
    file.unlink()
    assert resolve_start(section) is section


@pytest.mark.parametrize("key", ["start_digest", "reinitialise"])
def test_key_without_a_start_is_refused(key):
    value = "0" * 64 if key == "start_digest" else ["output*"]
    with pytest.raises(ConfigError, match=f"model.{key} has no effect"):
        resolve_start(build_config({"model": {key: value}}).model)


def test_site_makes_the_same_frozen_part_without_being_sent_it(file):
    config = build_config({"model": {"start_from": str(file), "freeze": ["linear1*"]}})
    config = config.model_copy(update={"model": resolve_start(config.model)})
    ours, theirs = (make(config, **SIZES) for make in (build_site_model, build_start_model))
    assert torch.equal(ours.linear1.weight, theirs.linear1.weight)


def test_site_without_a_frozen_part_needs_no_file(tmp_path):
    config = build_config({"model": {"start_from": str(tmp_path / "absent.safetensors")}})
    assert build_site_model(config, **SIZES).output.weight.requires_grad


def test_site_opens_no_file_whose_bytes_the_config_does_not_name(tmp_path):
    path = tmp_path / "absent.safetensors"
    config = build_config({"model": {"start_from": str(path), "freeze": ["linear1*"]}})
    with pytest.raises(PeerError, match="start_digest is missing"):
        build_site_model(config, **SIZES)


def test_site_says_the_same_of_a_file_that_is_not_there_and_of_another(file, tmp_path):
    told = []
    for path in (file, tmp_path / "absent.safetensors"):
        model = {"start_from": str(path), "start_digest": "0" * 64, "freeze": ["linear1*"]}
        with pytest.raises(ConfigError) as caught:
            build_site_model(build_config({"model": model}), **SIZES)
        told.append(describe_publicly(caught.value))
    assert told[0] == told[1]
