"""From a config section to a model with reproducible start parameters, and back from JSON.

`build_model` is what a run starts from; `describe_architecture` is what it writes down, and
`build_described_model` builds the same model from that alone.
"""

import difflib
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from fedtrain.config import ModelSection
from fedtrain.errors import AuditError, ConfigError
from fedtrain.models.architectures import (
    ARCHITECTURES,
    KEYS,
    READS_HIDDEN,
    READS_IDS,
    WITHOUT_ACTIVATION,
)
from fedtrain.models.initialisation import initialise
from fedtrain.models.layers import resolve_activation
from fedtrain.models.sizes import Sizes
from fedtrain.models.trained_part import choose_trained, has_frozen_part
from fedtrain.user_function import call_function, describe_exception, is_function_reference

INPUT_DTYPES: Final = {"float32": torch.float32, "int64": torch.int64}
OPTIONAL_KEYS: Final = (
    "initialisation",
    "dropout",
    "embedding",
    "embedding_stddev",
    "vocabulary",
    "predict",
    "layers",
    "heads",
)
TRAINED_KEYS: Final = ("freeze", "lora", "lora_rank")


def build_model(
    section: ModelSection,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: torch.Generator,
    input_dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build the configured model with start parameters drawn from a generator.

    Args:
        section: The config's `model` section.
        input_shape: Shape of one record, without the batch.
        classes: Number of logits.
        generator: Source of the start parameters; equal states give equal bytes. One number is
            drawn from it.
        input_dtype: float32, or int64 for token ids.

    Returns:
        A module that maps `(n, *input_shape)` to logits `(n, classes)`, in training mode, on the
        CPU. The global random state is left as it was.

    Raises:
        ConfigError: The model is unknown, does not fit the data, or the user's function cannot be
            used.
    """
    _verify_sizes(input_shape, classes)
    seed = int(torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        build = _build_own if is_function_reference(section.name) else _build_named
        model = build(section, input_shape, classes, input_dtype=input_dtype)
        if has_frozen_part(section):
            choose_trained(model, section, torch.zeros(2, *input_shape, dtype=input_dtype))
        return model


def describe_architecture(
    section: ModelSection,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    input_dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Return what `build_described_model` needs to build the same model, as JSON types."""
    description: dict[str, Any] = {
        "name": section.name,
        "input_shape": list(input_shape),
        "input_dtype": str(input_dtype).removeprefix("torch."),
        "classes": classes,
    }
    if is_function_reference(section.name):
        return description | {"options": dict(section.options)} | _describe_trained(section)
    if section.name in READS_HIDDEN:
        description["hidden"] = list(section.hidden)
    if section.name not in WITHOUT_ACTIVATION:
        description["activation"] = resolve_activation(section)
    given = {key: getattr(section, key) for key in OPTIONAL_KEYS}
    described = {key: value for key, value in given.items() if value is not None}
    return description | described | _describe_trained(section)


def _describe_trained(section: ModelSection) -> dict[str, Any]:
    given = {key: getattr(section, key) for key in TRAINED_KEYS}
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in given.items()
        if value is not None
    }


def build_described_model(description: Mapping[str, Any], generator: torch.Generator) -> nn.Module:
    """Build a model from what `describe_architecture` returned.

    Args:
        description: The description; from a file that may be damaged.
        generator: Source of the start parameters.

    Raises:
        AuditError: The description is incomplete or does not describe a model.
        ConfigError: As `build_model`.
    """
    keys = ("name", "hidden", "activation", "options", *OPTIONAL_KEYS, *TRAINED_KEYS)
    try:
        section = ModelSection.model_validate(
            {key: description[key] for key in keys if key in description or key == "name"},
            strict=False,  # JSON has lists where the schema has tuples
        )
        input_shape = tuple(int(size) for size in description["input_shape"])
        input_dtype = INPUT_DTYPES[description["input_dtype"]]
        classes = int(description["classes"])
    except (KeyError, TypeError, ValueError) as error:
        raise AuditError(
            f"the architecture cannot be read ({type(error).__name__}); it needs name, input_shape,"
            " input_dtype and classes; save the model again"
        ) from error
    return build_model(
        section,
        input_shape=input_shape,
        classes=classes,
        generator=generator,
        input_dtype=input_dtype,
    )


def _verify_sizes(input_shape: tuple[int, ...], classes: int) -> None:
    if classes < 1:
        raise ConfigError(f"classes = {classes} leaves nothing to return; a model needs an output")
    if not input_shape or min(input_shape) < 1:
        raise ConfigError(
            f"records of shape {input_shape} hold no value; the data needs at least 1 feature"
        )


def _build_named(
    section: ModelSection, input_shape: tuple[int, ...], classes: int, *, input_dtype: torch.dtype
) -> nn.Module:
    if section.name not in ARCHITECTURES:
        near = difflib.get_close_matches(section.name, ARCHITECTURES, n=1)
        cure = f"did you mean '{near[0]}'?" if near else f"choose {', '.join(ARCHITECTURES)}"
        raise ConfigError(f"model.name = '{section.name}' is unknown; {cure} or module:function")
    if section.options:
        raise ConfigError(
            f"model.options has {', '.join(section.options)}, but model.name = '{section.name}'"
            " takes none; they are for a module:function"
        )
    for key in OPTIONAL_KEYS[1:]:
        if getattr(section, key) is not None and key not in KEYS[section.name]:
            raise ConfigError(
                f"model.{key} has no effect with model.name = '{section.name}'; remove it"
            )
    is_discrete = not input_dtype.is_floating_point
    if is_discrete and section.name not in READS_IDS:
        raise ConfigError(
            f"model.name = '{section.name}' cannot read token ids ({input_dtype}), it would take"
            f" them for quantities; choose {', '.join(sorted(READS_IDS))} or a module:function with"
            " an embedding"
        )
    model = ARCHITECTURES[section.name](section, Sizes(input_shape, classes, is_discrete))
    if section.initialisation is not None:
        initialise(model, section.initialisation)
    return model


def _build_own(
    section: ModelSection, input_shape: tuple[int, ...], classes: int, *, input_dtype: torch.dtype
) -> nn.Module:
    given = {"input_shape": input_shape, "classes": classes}
    for name in section.options:
        if name in given:
            raise ConfigError(
                f"model.options.{name} is given by fedtrain to model.name = '{section.name}';"
                " remove it"
            )
    model = call_function(section.name, "model.name", keywords=given | section.options)
    where = f"model.name = '{section.name}'"
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{where} returned a {type(model).__name__}; return a torch.nn.Module")
    _verify_logits(model, torch.zeros(2, *input_shape, dtype=input_dtype), classes, where=where)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"{where} has no parameter to train; return a module with one")
    return model.train()


def _verify_logits(model: nn.Module, inputs: torch.Tensor, classes: int, *, where: str) -> None:
    wanted = (len(inputs), classes)
    try:
        with torch.no_grad():
            logits = model.eval()(inputs)
    except Exception as error:
        raise ConfigError(
            f"{where} cannot take a batch of {tuple(inputs.shape)} {inputs.dtype}"
            f" ({describe_exception(error)}); it must return logits {wanted}"
        ) from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != wanted:
        raise ConfigError(
            f"{where} returned {shape} for a batch of {tuple(inputs.shape)}; it must return logits"
            f" {wanted}"
        )
