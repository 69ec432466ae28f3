"""A scenario file generated from the schema: every key, explained.

Keys that the base scenario sets are active; all others stand there as comments with their
default, so that the file says what a run would do and what could be changed.
"""

import textwrap
from types import NoneType
from typing import Any, Final, get_args

import tomli_w
from pydantic.fields import FieldInfo

from fedtrain.config import Config, Section, build_config, to_tree

WIDTH: Final = 100
BOUNDS: Final = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def render_scenario(base: Config, name: str, *, note: str = "") -> str:
    """Return a commented scenario.

    Args:
        base: The config whose set keys become the active ones.
        name: The name of the run.
        note: What else its first lines say.

    Returns:
        TOML text that `fedtrain.config.parse_config` reads back to `base` under its new name.

    Raises:
        ConfigError: The name cannot name a run.
    """
    tree = to_tree(base)
    build_config({**tree, "run": {**tree["run"], "name": name}}, name="init")
    run = base.run.model_copy(update={"name": name})
    config = base.model_copy(update={"run": run})
    blocks = [
        _comment(
            f"{name}: a scenario of fedtrain. Every key is here; a commented one shows its default."
        )
        + (_comment(note) if note else "")
    ]
    for key in Config.model_fields:
        section = getattr(config, key)
        blocks.append(_render_absent(key) if section is None else _render_section(key, section))
    return "\n".join(blocks)


def format_value(value: Any) -> str:
    """Return a value in TOML on one line; tables are inline, without keys that have no value."""
    if isinstance(value, dict):
        given = {key: item for key, item in value.items() if item is not None}
        pairs = (f"{_format_key(key)} = {format_value(item)}" for key, item in given.items())
        return f"{{ {', '.join(pairs)} }}" if given else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(format_value(item) for item in value)}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def _format_key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")


def render_keys(section: Section) -> list[str]:
    """Return each key in TOML with its explanation, tables left out; unset ones are comments."""
    properties = type(section).model_json_schema()["properties"]
    values = section.model_dump(mode="json")
    blocks = []
    for key, field in type(section).model_fields.items():
        if isinstance(getattr(section, key), Section):
            continue  # a table of its own
        explanation = _comment(_describe(field, properties[key]))
        active = key in section.model_fields_set and values[key] is not None
        blocks.append(explanation + _render_key(key, values[key], active=active))
    return blocks


def _render_section(name: str, section: Section) -> str:
    header = f"{_comment((type(section).__doc__ or '').splitlines()[0])}[{name}]\n"
    tables = [
        _render_section(f"{name}.{key}", getattr(section, key))
        for key in type(section).model_fields
        if isinstance(getattr(section, key), Section)
    ]
    return "\n".join([header, *render_keys(section), *tables])


def _render_absent(name: str) -> str:
    """Return an optional section that is not there: every line of it a comment."""
    (schema,) = (
        one for one in get_args(Config.model_fields[name].annotation) if one is not NoneType
    )
    properties = schema.model_json_schema()["properties"]
    header = f"{_comment((schema.__doc__ or '').splitlines()[0])}# [{name}]\n"
    blocks = [
        _comment(_describe(field, properties[key]))
        + _render_key(key, None if field.is_required() else field.default, active=False)
        for key, field in schema.model_fields.items()
    ]
    return "\n".join([header, *blocks])


def _render_key(key: str, value: Any, *, active: bool) -> str:
    if active:
        return f"{key} = {format_value(value)}\n"
    return f"# {key} = {'(not set)' if value is None else format_value(value)}\n"


def _describe(field: FieldInfo, schema: dict[str, Any]) -> str:
    """Return the description of a key with its kind, choices and bounds."""
    variants = [schema, *schema.get("anyOf", [])]
    enums = (variant["enum"] for variant in variants if "enum" in variant)
    choices = [str(choice) for choice in next(enums, ())]
    found = {word: v[word] for v in variants for word in BOUNDS if word in v}
    bounds = [f"{BOUNDS[word]} {bound}" for word, bound in found.items() if bound < 2**32]
    text = field.description or ""
    if choices and not all(choice in text for choice in choices):
        text += f" One of: {', '.join(choices)}."
    kind = next((v["type"] for v in variants if v.get("type") in ("integer", "number")), None)
    if kind:
        text += f" [{', '.join([kind, *bounds])}]"
    return text


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False))
