"""Which preparation a run uses, and which public constants it cannot do without."""

from typing import Final, Literal

from fedtrain.config import Config
from fedtrain.data.frames import suggest_name
from fedtrain.data.public import ARRAY_NAME, PublicConstants
from fedtrain.data.schema_faults import UnknownColumnError
from fedtrain.errors import ConfigError

PreparationKind = Literal["standardise", "bounds", "none"]
MAX_NAMED: Final = 5  # columns that a message names


def resolve_preparation_kind(config: Config, public: PublicConstants) -> PreparationKind:
    """Return the kind that a run uses.

    The config's own where it names one; else `none` for text, `bounds` where the source has a
    public range, where `data.bounds` is given or under privacy of any unit, and `standardise`
    for the rest.
    """
    if config.data.preparation is not None:
        return config.data.preparation
    if public.is_discrete:
        return "none"
    if config.data.bounds or public.value_range or config.privacy.unit != "none":
        return "bounds"
    return "standardise"


def verify_preparation(config: Config, public: PublicConstants) -> None:
    """Refuse a preparation that lacks a public constant it rests on, before data is looked at.

    Guarantees:
        Under privacy, whatever its unit, a config that passes lets `fit_preparation` use public
        constants alone: bounds of every number, categories of every category, and classes.

    Raises:
        ConfigError: A bound, a category or the classes are missing, or named in vain.
    """
    kind, data = resolve_preparation_kind(config, public), config.data
    if data.augmentation is not None:
        _verify_images(config, public)
    if public.is_discrete and kind != "none":
        raise ConfigError(f"data.preparation = {kind!r} cannot prepare text; set 'none'")
    if data.clip_outliers is not None:
        _verify_clipping(config, public)
    secure = needs_secure_statistics(config, public)
    if data.bounds and kind != "bounds" and not secure:
        raise ConfigError(
            f"data.bounds has no effect while data.preparation = {kind!r}; set 'bounds', or remove"
            " data.bounds"
        )
    _verify_names(config, public)
    if secure:
        _verify_bounded(kind, config, public)
        return
    if config.secure_aggregation.mode == "protocol" and needs_statistics(config, public):
        open_keys = _name_open_keys(kind, config, public)
        cure = f"set {' and '.join(open_keys)}" if open_keys else "change it"
        if config.statistics is None:
            cure += ", or simulate with secure_aggregation.mode = 'off'"
        raise ConfigError(
            f"data.preparation = {kind!r} needs what each site counts in plain, which secure"
            f" aggregation hides; {cure}"
        )
    if config.privacy.unit != "none" and public.label_names is None:
        raise ConfigError(
            f"data.classes is missing and privacy.unit = {config.privacy.unit!r} allows none found"
            ' in data; set e.g. data.classes = ["0", "1"]'
        )
    if kind != "bounds":
        return
    if public.columns is None and public.value_range is None:
        raise ConfigError(
            f"the source has no public value range; set e.g. data.bounds.{ARRAY_NAME} = [0, 255]"
        )
    _verify_columns(config, public)


def _name_open_keys(kind: PreparationKind, config: Config, public: PublicConstants) -> list[str]:
    """Return the keys that would make counts in plain needless: those that are not set."""
    data, keys = config.data, []
    if public.columns is None:
        if kind == "standardise":
            keys.append(f"data.bounds.{ARRAY_NAME}")
    elif kind != "none":
        columns = [c for c in public.columns if c not in data.bounds and c not in data.categories]
        more = len(columns) - MAX_NAMED
        shown = columns if more <= 0 else [*columns[:MAX_NAMED], f"{more} more"]
        if columns:
            keys.append(f"data.bounds or data.categories of the columns ({', '.join(shown)})")
    if public.label_names is None:
        keys.append("data.classes")
    return keys


def _verify_images(config: Config, public: PublicConstants) -> None:
    shape = public.input_shape
    if public.columns is not None or public.is_discrete or len(shape or (0, 0)) not in (2, 3):
        raise ConfigError(
            f"data.augmentation = {list(config.data.augmentation or ())} needs images, data.source"
            f" = {config.data.source!r} has none; remove it"
        )


def _verify_columns(config: Config, public: PublicConstants) -> None:
    """Refuse a column that has neither public bounds nor public categories."""
    data = config.data
    for name in public.columns or ():
        if name not in data.bounds and name not in data.categories:
            cure = f"data.bounds.{name} = [0, 120]"
            if name in data.categorical:
                cure = f'data.categories.{name} = ["a", "b"]'
            raise UnknownColumnError(
                f"column {name!r} has no public bounds or categories; set e.g. {cure}"
            )


def _verify_clipping(config: Config, public: PublicConstants) -> None:
    if config.privacy.unit != "none":
        raise ConfigError(
            "data.clip_outliers would release quantiles unprotected under privacy.unit ="
            f" '{config.privacy.unit}'; leave it out: data.bounds clip too"
        )
    if config.secure_aggregation.mode == "off":
        raise ConfigError(
            "data.clip_outliers reads quantiles off a secure sum; set secure_aggregation.mode ="
            " 'protocol', or leave it out"
        )
    if public.columns is None:
        raise ConfigError("data.clip_outliers works on the columns of a table; leave it out")


def _verify_bounded(kind: PreparationKind, config: Config, public: PublicConstants) -> None:
    """Refuse statistics through a secure sum without the public constants that it rests on."""
    if public.label_names is None or kind == "none":
        raise ConfigError(
            f"data.preparation = {kind!r} through secure aggregation needs public classes; set"
            " e.g. data.classes = [\"0\", \"1\"], and 'standardise' or 'bounds'"
        )
    _verify_columns(config, public)


def _verify_names(config: Config, public: PublicConstants) -> None:
    data = config.data
    known = (ARRAY_NAME,) if public.columns is None else public.columns
    for key in ("bounds", "categories", "categorical", "zero_is_missing"):
        for name in getattr(data, key):
            if name not in known:
                raise UnknownColumnError(
                    f"data.{key} names {name!r}, which is no feature column;"
                    f" {suggest_name(name, known)}"
                )
    if data.columns is not None and len(set(data.columns)) < len(data.columns):
        raise ConfigError("data.columns names a column twice; keep one")
    for name in data.bounds:
        if name in data.categories or name in data.categorical:
            raise ConfigError(f"column {name!r} has bounds and categories; keep one")


def needs_statistics(config: Config, public: PublicConstants) -> bool:
    """Say whether `fit_preparation` needs sums over sites; never under privacy."""
    if config.privacy.unit != "none":
        return False
    kind = resolve_preparation_kind(config, public)
    return (
        kind == "standardise"
        or config.data.clip_outliers is not None
        or public.label_names is None
        or (public.columns is None and public.input_shape is None)
        or (public.columns is not None and kind == "none")
    )


def needs_secure_statistics(config: Config, public: PublicConstants) -> bool:
    """Say whether the preparation's sums come from a secure sum and not from each site in plain.

    They rest on public bounds of every number and on public categories and classes.
    """
    mode, data = config.secure_aggregation.mode, config.data
    if config.privacy.unit != "none" or mode == "off" or public.columns is None:
        return False
    if data.clip_outliers is not None:
        return True
    standardised = resolve_preparation_kind(config, public) == "standardise"
    return standardised and mode == "protocol" and bool(data.bounds or data.categories)
