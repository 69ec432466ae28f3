"""One model behind HTTP: POST /predict, and its input's schema as OpenAPI.

A request is checked against what the model was trained on: names of columns, their kinds, known
categories, public bounds, shape of an array. Whatever does not fit is refused with a line that
says where; nothing of a request is kept or logged.
"""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from fedtrain.data.encoding import CategoryColumn, NumericColumn
from fedtrain.data.frames import name_categories
from fedtrain.data.preparation import Preparation
from fedtrain.errors import DataError
from fedtrain.use.answers import PREDICTION, PROBABILITY, compute_answers
from fedtrain.use.extras import require
from fedtrain.use.run_model import RunModel

MAX_RECORDS: Final = 1000
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_STRICT: Final = ConfigDict(extra="forbid", allow_inf_nan=False)


class Prediction(BaseModel):
    """What the model says of one record."""

    prediction: str | None = Field(None, description="The most probable class, or all labels.")
    probabilities: dict[str, float] | None = Field(
        None, description="Probability of each class or label."
    )
    values: dict[str, float] | None = Field(
        None, description="Predicted numbers, in their own unit, or the score of an anomaly."
    )


class Predictions(BaseModel):
    """What the model says, in the order of the request."""

    predictions: list[Prediction]


class Description(BaseModel):
    """Which model answers."""

    run: str
    classes: list[str]
    input_shape: list[int]
    columns: list[str] | None


def build_server(model: RunModel, *, host: str = LOOPBACK[0]) -> Any:
    """Return the FastAPI application of a model.

    Args:
        model: The run's model.
        host: Where it will listen; on loopback, requests under another host's name are refused,
            so that no web page can ask through a browser.

    Raises:
        ConfigError: FastAPI is not installed.
    """
    fastapi = require("fastapi", extra="serve")
    server = fastapi.FastAPI(title=model.config.run.name, docs_url=None, redoc_url=None)
    if is_loopback(host):
        trusted = require("starlette.middleware.trustedhost", extra="serve").TrustedHostMiddleware
        server.add_middleware(trusted, allowed_hosts=[*LOOPBACK, "::1", host])
    request = build_request(model.preparation)
    prepare = _make_preparer(model.preparation)

    def answer(body: Any) -> Predictions:
        try:
            answers = compute_answers(model, prepare(body.records))
        except DataError as error:
            raise fastapi.HTTPException(422, str(error)) from error
        rows = range(len(body.records))
        return Predictions(predictions=[_to_prediction(answers, row) for row in rows])

    # FastAPI reads the request's type off the annotation, which is made here.
    answer.__annotations__["body"] = request

    def refuse(_: Any, error: Any) -> Any:
        """Say where a request does not fit, without repeating what it held."""
        detail = [{"loc": problem["loc"], "msg": problem["msg"]} for problem in error.errors()]
        return fastapi.responses.JSONResponse({"detail": detail}, status_code=422)

    server.exception_handler(fastapi.exceptions.RequestValidationError)(refuse)
    server.post(
        "/predict", response_model=Predictions, response_model_exclude_none=True, summary="Predict"
    )(answer)

    def describe() -> Description:
        columns = model.preparation.columns
        return Description(
            run=model.config.run.name,
            classes=list(model.label_names),
            input_shape=list(model.preparation.input_shape),
            columns=None if columns is None else [column.name for column in columns],
        )

    server.get("/model", summary="Describe the model")(describe)
    return server


def is_loopback(host: str) -> bool:
    """Say whether an address can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def build_request(preparation: Preparation) -> type[BaseModel]:
    """Return the schema of a request: `records`, each by what the model was trained on."""
    record: Any = Any
    if preparation.columns is not None:
        record = _build_record(preparation)
    else:
        record = _nest(_make_value(preparation), preparation.input_shape)
    records = Annotated[list[record], Field(min_length=1, max_length=MAX_RECORDS)]
    return create_model("Request", __config__=_STRICT, records=(records, ...))


def _build_record(preparation: Preparation) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for number, column in enumerate(preparation.columns or ()):
        if isinstance(column, NumericColumn):
            kind, may_lack = _make_number(column, preparation), column.fill is not None
        else:
            kind, may_lack = _make_category(column), column.marks_missing
        field = Field(alias=column.name) if not may_lack else Field(None, alias=column.name)
        fields[f"column_{number}"] = (kind | None if may_lack else kind, field)
    return create_model("Record", __config__=_STRICT, **fields)


def _make_number(column: NumericColumn, preparation: Preparation) -> Any:
    if preparation.kind != "bounds":
        return Annotated[float, Field(strict=True)]
    high = column.center + column.scale
    return Annotated[float, Field(strict=True, ge=column.center, le=high)]


def _make_category(column: CategoryColumn) -> Any:
    names = Literal[column.categories] if column.categories else str
    return Annotated[names, BeforeValidator(_name_category)]


def _name_category(value: Any) -> Any:
    """Return a category as the training data names it: 1, 1.0 and "01" are "1"."""
    is_name = isinstance(value, str | int | float) and not isinstance(value, bool)
    return name_categories([str(value)])[0] if is_name else value


def _make_value(preparation: Preparation) -> Any:
    if preparation.is_discrete:
        return Annotated[int, Field(strict=True, ge=0, lt=len(preparation.label_names))]
    if preparation.kind != "bounds" or len(preparation.center) != 1:
        return Annotated[float, Field(strict=True)]
    low = preparation.center[0]
    return Annotated[float, Field(strict=True, ge=low, le=low + preparation.scale[0])]


def _nest(kind: Any, shape: Sequence[int]) -> Any:
    for size in reversed(shape):
        kind = Annotated[list[kind], Field(min_length=size, max_length=size)]
    return kind


def _make_preparer(preparation: Preparation) -> Callable[[list[Any]], Any]:
    columns = preparation.columns
    if columns is None:
        dtype = np.int64 if preparation.is_discrete else np.float64
        return lambda records: preparation.apply_features(np.array(records, dtype=dtype))

    def prepare(records: list[Any]) -> Any:
        series = []
        for number, column in enumerate(columns):
            values = [getattr(record, f"column_{number}") for record in records]
            dtype = pl.Float64 if isinstance(column, NumericColumn) else pl.String
            series.append(pl.Series(column.name, values, dtype=dtype))
        return preparation.apply_features(pl.DataFrame(series))

    return prepare


def _to_prediction(answers: dict[str, Any], row: int) -> Prediction:
    numbers = {name: float(column[row]) for name, column in answers.items() if name != PREDICTION}
    if PREDICTION not in answers:
        return Prediction(values=numbers)
    named = {name.removeprefix(PROBABILITY): value for name, value in numbers.items()}
    return Prediction(prediction=str(answers[PREDICTION][row]), probabilities=named)
