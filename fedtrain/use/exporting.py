"""A model as a file that other programs run, checked against the original before it is in place.

A file takes prepared records and returns the model's outputs. What prepares a record, and the
names of the classes, are in the file beside the parameters, under `fedtrain`, as JSON.

Shapes: n records, C outputs.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray

from fedtrain.durable import replace_file
from fedtrain.errors import AuditError, ConfigError
from fedtrain.models.registry import INPUT_DTYPES, build_described_model
from fedtrain.models.start import IMPORTANCE
from fedtrain.training.memory import compute_importance
from fedtrain.use.extras import require
from fedtrain.use.new_records import read_new_records
from fedtrain.use.run_model import RunModel

Format = Literal["onnx", "torchscript", "safetensors"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
KEY: Final = "fedtrain"
TOLERANCE: Final = 1e-4  # relative to the largest output; float32 in another order of sums
_SEED: Final = 0
_SIZES: Final = (1, 2, 33)
_LARGE: Final = 1e4
MAX_WEIGHED: Final = 1000

Run = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        path: The file.
        size: Its bytes.
        checked: Records whose outputs were compared.
        difference: The largest difference of an output, relative to the largest output.
    """

    path: Path
    size: int
    checked: int
    difference: float


def export_model(model: RunModel, format: Format, path: Path) -> Exported:
    """Write a model for other programs.

    Args:
        model: The run's model.
        format: `onnx` (needs the extra of that name), `torchscript` or `safetensors`.
        path: Where; an older file is replaced.

    Raises:
        ConfigError: The model cannot be expressed so, or the file cannot be written.
        AuditError: The exported model's outputs differ from the original's.

    Guarantees:
        A file is in place only after its outputs on random and on extreme records, in batches of
        1, 2 and 33, were within `TOLERANCE` of the original's.
    """
    write, load = _WRITERS[format], _LOADERS[format]
    partial = path.with_name(f"{path.name}.partial")
    try:
        write(model, partial)
        checked, difference = _compare(model, load(partial))
        size = partial.stat().st_size
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    return Exported(path, size, checked, difference)


def export_importance(model: RunModel, data: Path, path: Path) -> None:
    """Write a start file: the model, and how much what it knows rests on each parameter.

    Args:
        model: A run's model of classes.
        data: Earlier records; of more than `MAX_WEIGHED` the first.
        path: A .safetensors file; an older one is replaced.

    Raises:
        ConfigError: The model is of no classes, or the file cannot be written.
        DataError: The records cannot be read.
    """
    if model.preparation.task is not None:
        raise ConfigError(f"importance: data.task = '{model.preparation.task}' has no classes")
    if path.suffix != ".safetensors":
        raise ConfigError(f"--out {path}: give a name that ends in .safetensors")
    features = read_new_records(model, data).features[:MAX_WEIGHED]
    importance = compute_importance(model.module, features)
    state = {name: t.detach().clone().contiguous() for name, t in model.module.state_dict().items()}
    state |= {f"{IMPORTANCE}{name}": tensor for name, tensor in importance.items()}
    try:
        replace_file(path, safetensors.torch.save(state), sync=False)
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written ({error.strerror})") from error


def make_trial_records(model: RunModel) -> Iterator[NDArray[Any]]:
    """Yield batches that a faulty export would show in: random, zero, one, and huge values."""
    generator = np.random.default_rng(_SEED)
    shape = model.preparation.input_shape
    if model.preparation.is_discrete:
        for size in _SIZES:
            yield generator.integers(0, len(model.label_names), (size, *shape), dtype=np.int64)
        return
    for size in _SIZES:
        yield generator.normal(size=(size, *shape)).astype(np.float32)
    for value in (0.0, 1.0, -1.0, _LARGE, -_LARGE):
        yield np.full((2, *shape), value, np.float32)


def _compare(model: RunModel, run: Run) -> tuple[int, float]:
    """Return how many records were compared, and the largest relative difference."""
    checked, worst = 0, 0.0
    for batch in make_trial_records(model):
        expected = model.compute_outputs(batch)
        try:
            found = run(batch)
        except Exception as error:
            raise AuditError(
                f"the exported model fails on {len(batch)} records ({str(error).splitlines()[0]});"
                " choose another --format"
            ) from error
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise AuditError(
                f"the exported model's outputs have shape {found.shape} or are not finite, the"
                f" original's have {expected.shape}; choose another --format"
            )
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)) / scale)
        checked += len(batch)
    if worst > TOLERANCE:
        raise AuditError(
            f"the exported model's outputs differ by {worst:.3g} of the largest output, above"
            f" {TOLERANCE:g}; choose another --format"
        )
    return checked, worst


def _describe(model: RunModel) -> str:
    return json.dumps(model.description, sort_keys=True, allow_nan=False)


def _write_onnx(model: RunModel, path: Path) -> None:
    onnx = require("onnx", extra="onnx")
    require("onnxruntime", extra="onnx")
    with _exporting("onnx"):
        # The exporter by tracing: the newer one needs onnxscript and 20 times as long.
        torch.onnx.export(
            model.module,
            (_make_example(model),),
            str(path),
            dynamo=False,
            input_names=["inputs"],
            output_names=["outputs"],
            dynamic_axes={"inputs": {0: "n"}, "outputs": {0: "n"}},
        )
    graph = onnx.load(str(path))
    graph.metadata_props.add(key=KEY, value=_describe(model))
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def _load_onnx(path: Path) -> Run:
    session = require("onnxruntime", extra="onnx").InferenceSession(str(path))
    return lambda batch: np.asarray(session.run(None, {"inputs": batch})[0])


def _write_torchscript(model: RunModel, path: Path) -> None:
    example = _make_example(model)
    with _exporting("torchscript"):
        traced = torch.jit.trace(model.module, example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path), _extra_files={KEY: _describe(model).encode()})


def _load_torchscript(path: Path) -> Run:
    with _exporting("torchscript"):
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return lambda batch: _call(loaded, batch)


def _write_safetensors(model: RunModel, path: Path) -> None:
    state = {name: t.detach().clone().contiguous() for name, t in model.module.state_dict().items()}
    path.write_bytes(safetensors.torch.save(state, metadata={KEY: _describe(model)}))


def _load_safetensors(path: Path) -> Run:
    with safetensors.safe_open(path, framework="pt") as file:
        description: Mapping[str, Any] = json.loads(file.metadata()[KEY])
    module = build_described_model(description["architecture"], torch.Generator()).eval()
    module.load_state_dict(safetensors.torch.load_file(path))
    return lambda batch: _call(module, batch)


def _call(module: Callable[[torch.Tensor], torch.Tensor], batch: NDArray[Any]) -> Any:
    with torch.no_grad():
        return module(torch.from_numpy(batch)).numpy()


def _make_example(model: RunModel) -> torch.Tensor:
    dtype = INPUT_DTYPES["int64" if model.preparation.is_discrete else "float32"]
    return torch.zeros(2, *model.preparation.input_shape, dtype=dtype)


@contextmanager
def _exporting(format: Format) -> Iterator[None]:
    """Keep torch's deprecation of its exporters quiet; say in one line what they refuse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the model cannot be written as {format} ({str(error).splitlines()[0]}); choose"
            " another --format"
        ) from error


_WRITERS: Final[dict[Format, Callable[[RunModel, Path], None]]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "safetensors": _write_safetensors,
}
_LOADERS: Final[dict[Format, Callable[[Path], Run]]] = {
    "onnx": _load_onnx,
    "torchscript": _load_torchscript,
    "safetensors": _load_safetensors,
}
