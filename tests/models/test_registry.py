"""Models by name: sizes, shapes, reproducible start parameters, refusals."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fedtrain.config import ModelSection
from fedtrain.errors import AuditError, ConfigError
from fedtrain.models.registry import build_described_model, build_model, describe_architecture

IMAGE = (1, 28, 28)
EVERY = [
    ("logistic", (784,)),
    ("logistic", IMAGE),
    ("mlp", (64,)),
    ("mlp", (3, 4, 4)),
    ("cnn", IMAGE),
    ("cnn", (28, 28)),
    ("cnn", (3, 32, 32)),
    ("cnn", (8, 8)),
    ("cnn", (1, 5, 9)),
    ("cnn_groupnorm", (3, 32, 32)),
    ("cnn_small", IMAGE),
    ("cnn_small", (28, 28)),
    ("cnn_small", (3, 32, 32)),
    ("cnn_small", (8, 8)),
    ("cnn_small", (1, 6, 13)),
    ("cnn_small", (1, 14, 15)),
    ("cnn_small", (1, 13, 64)),
]


def build(
    section: ModelSection, shape: tuple[int, ...], *, seed: int = 0, classes: int = 10
) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return build_model(section, input_shape=shape, classes=classes, generator=generator)


def to_bytes(model: torch.nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("section", "shape", "parameters"),
    [
        (ModelSection(name="logistic"), (784,), 7_850),
        (ModelSection(name="mlp", hidden=(200, 200)), (784,), 199_210),
        (ModelSection(name="mlp", hidden=()), (784,), 7_850),
        (ModelSection(name="cnn"), IMAGE, 1_663_370),
        (ModelSection(name="cnn_groupnorm"), IMAGE, 1_663_370 + 2 * (32 + 64)),
        (ModelSection(name="cnn_small"), IMAGE, 26_010),
    ],
)
def test_model_has_the_published_number_of_parameters(
    section: ModelSection, shape: tuple[int, ...], parameters: int
) -> None:
    model = build(section, shape)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(("name", "shape"), EVERY)
@pytest.mark.parametrize("records", [0, 1, 3])
def test_model_maps_any_batch_to_logits(name: str, shape: tuple[int, ...], records: int) -> None:
    logits = build(ModelSection(name=name), shape)(torch.zeros(records, *shape))
    assert logits.shape == (records, 10)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("name", "shape"), EVERY)
def test_model_has_no_buffer(name: str, shape: tuple[int, ...]) -> None:
    assert not list(build(ModelSection(name=name), shape).buffers())


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn_small"])
def test_start_parameters_follow_the_generator_alone(name: str) -> None:
    section = ModelSection(name=name)
    torch.manual_seed(1)
    first = to_bytes(build(section, IMAGE, seed=7))
    torch.manual_seed(2)
    assert to_bytes(build(section, IMAGE, seed=7)) == first
    assert to_bytes(build(section, IMAGE, seed=8)) != first


def test_building_leaves_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    build(ModelSection(), IMAGE)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_two_models_of_one_generator_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        build_model(ModelSection(), input_shape=(4,), classes=2, generator=generator)
        for _ in range(2)
    )
    assert to_bytes(first) != to_bytes(second)


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        (ModelSection(name="cnn"), torch.nn.ReLU),
        (ModelSection(name="cnn_small"), torch.nn.Tanh),
        (ModelSection(name="cnn_small", activation="silu"), torch.nn.SiLU),
    ],
)
def test_activation_defaults_by_architecture(section: ModelSection, kind: type) -> None:
    assert any(isinstance(module, kind) for module in build(section, IMAGE).modules())


@pytest.mark.parametrize(
    ("section", "shape", "text"),
    [
        (ModelSection(name="logitic"), (4,), "did you mean 'logistic'"),
        (ModelSection(name="zzz"), (4,), "choose logistic, mlp"),
        (ModelSection(name="cnn"), (64,), r"shape \(64,\)"),
        (ModelSection(name="cnn"), (28, 28, 1), "28x1"),
        (ModelSection(name="cnn_small"), (5, 5), "at least 6x6"),
        (ModelSection(hidden=(8, 0)), (4,), "layer of 0 units"),
        (ModelSection(name="mlp", options={"a": 1}), (4,), "model.options has a"),
        (ModelSection(), (0,), "hold no value"),
        (ModelSection(), (), "hold no value"),
    ],
)
def test_model_that_does_not_fit_is_refused(
    section: ModelSection, shape: tuple[int, ...], text: str
) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        build(section, shape)
    assert "\n" not in str(caught.value)


def test_model_without_an_output_is_refused() -> None:
    with pytest.raises(ConfigError, match="classes = 0"):
        build(ModelSection(), (4,), classes=0)


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_token_ids_are_refused_without_an_embedding(name: str) -> None:
    with pytest.raises(ConfigError, match="token ids"):
        build_model(
            ModelSection(name=name),
            input_shape=(32,),
            classes=9,
            generator=torch.Generator(),
            input_dtype=torch.int64,
        )


@pytest.mark.parametrize(("name", "shape"), EVERY)
def test_description_builds_the_same_model(name: str, shape: tuple[int, ...]) -> None:
    section = ModelSection(name=name, hidden=(5, 4), activation="gelu")
    text = json.dumps(describe_architecture(section, input_shape=shape, classes=3))
    model = build_described_model(json.loads(text), torch.Generator().manual_seed(4))
    assert to_bytes(model) == to_bytes(build(section, shape, seed=4, classes=3))


@pytest.mark.parametrize(
    "damage",
    [
        lambda description: description.pop("name"),
        lambda description: description.pop("classes"),
        lambda description: description.update(input_shape="wide"),
        lambda description: description.update(input_dtype="float31"),
        lambda description: description.update(input_dtype="nn"),
        lambda description: description.update(hidden=["many"]),
    ],
)
def test_damaged_description_is_refused(damage: Callable[[dict[str, object]], object]) -> None:
    description = describe_architecture(ModelSection(), input_shape=(4,), classes=2)
    damage(description)
    with pytest.raises(AuditError, match="architecture cannot be read"):
        build_described_model(description, torch.Generator())


OWN = """
from torch import nn

def build(input_shape, classes, width=3):
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.Linear(width, classes))

def build_text(input_shape, classes):
    return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(4 * input_shape[0], classes))

def build_empty(**_):
    return nn.Flatten()

def build_frozen(input_shape, classes):
    return nn.Linear(input_shape[0], classes).requires_grad_(False)

def build_number(input_shape, classes):
    return 3

def build_wide(input_shape, classes):
    return nn.Linear(input_shape[0], classes + 1)

def build_narrow(input_shape, classes):
    return nn.Linear(input_shape[0] + 1, classes)

def takes_nothing():
    return None

value = 3
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own in the current working directory; returns its name."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"{name}_broken.py").write_text("def build(:\n")
    (tmp_path / f"{name}_imports.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def test_own_function_is_called_with_shape_classes_and_options(own_module: str) -> None:
    section = ModelSection(name=f"{own_module}:build", options={"width": 5})
    model = build(section, (4,), seed=3)
    assert model(torch.zeros(2, 4)).shape == (2, 10)
    assert model[0].out_features == 5
    assert model.training
    assert to_bytes(model) == to_bytes(build(section, (4,), seed=3))


def test_own_function_may_take_token_ids(own_module: str) -> None:
    model = build_model(
        ModelSection(name=f"{own_module}:build_text"),
        input_shape=(6,),
        classes=9,
        generator=torch.Generator(),
        input_dtype=torch.int64,
    )
    assert model(torch.zeros(2, 6, dtype=torch.int64)).shape == (2, 9)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (":build", "not of the form module:function"),
        ("{}:", "not of the form module:function"),
        ("{}:build:x", "not of the form module:function"),
        ("../{}:build", "not of the form module:function"),
        ("nowhere_{}:build", "no module 'nowhere_"),
        ("{}.sub:build", "no module"),
        ("{}_imports:build", "install what it imports"),
        ("{}_broken:build", "cannot be imported"),
        ("{}:buid", "has no function 'buid'; it has build, build_"),
        ("{}:value", "has no function 'value'"),
        ("{}:takes_nothing", "change its parameters"),
        ("{}:build_number", "returned a int"),
        ("{}:build_empty", r"returned \(2, 4\)"),
        ("{}:build_frozen", "no parameter to train"),
        ("{}:build_wide", r"returned \(2, 11\)"),
        ("{}:build_narrow", r"cannot take a batch of \(2, 4\)"),
    ],
)
def test_own_function_that_cannot_be_used_is_refused(
    own_module: str, reference: str, text: str
) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        build(ModelSection(name=reference.format(own_module)), (4,))
    assert "\n" not in str(caught.value)


def test_option_that_fedtrain_gives_is_refused(own_module: str) -> None:
    with pytest.raises(ConfigError, match=r"options\.classes"):
        build(ModelSection(name=f"{own_module}:build", options={"classes": 3}), (4,))
