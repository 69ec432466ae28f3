"""The scenarios that ship with fedtrain, found by name."""

import difflib
import importlib.util
from pathlib import Path

from fedtrain.errors import ConfigError


def find_scenario(name_or_path: str) -> Path:
    """Find a scenario file.

    Args:
        name_or_path: A file, or the name of a scenario that ships, such as `digits`. A file of
            that name in the current folder goes first.

    Returns:
        The file.

    Raises:
        ConfigError: There is neither.
    """
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise ConfigError(
            f"{name_or_path[:80]}...: cannot be a file ({error.strerror}); give a shorter name"
        ) from error
    shipped = list_scenarios()
    name = name_or_path.removesuffix(".toml")
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise ConfigError(f"{path}: a folder; give a TOML file or the name of a scenario")
    near = difflib.get_close_matches(Path(name).name, shipped, n=1, cutoff=0.5)
    cure = f"did you mean {near[0]}?" if near else f"shipped: {', '.join(shipped) or 'none'}"
    raise ConfigError(f"{path}: no such file and no shipped scenario; {cure}")


def list_scenarios() -> dict[str, Path]:
    """Return the scenarios that ship, by name, sorted."""
    return {path.stem: path for path in sorted(find_shipped_folder().glob("*.toml"))}


def read_headline(path: Path) -> str:
    """Return the first comment line of a scenario, without its `#`; '' where there is none."""
    with path.open(encoding="utf-8") as file:
        line = file.readline().strip()
    return line.lstrip("# ") if line.startswith("#") else ""


def find_shipped_folder() -> Path:
    """Return the folder of `fedtrain.simulations`, or `simulations/` of a bare checkout."""
    spec = importlib.util.find_spec("fedtrain.simulations")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    return Path(__file__).parent.parent / "simulations"
