"""The rules of the tree: who may import whom, and that every package is installed."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("fedtrain", "server", "clients", "simulations")


def list_modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def list_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the level (dots) and name of every import of a module, nested ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


@pytest.mark.parametrize("path", list_modules("fedtrain"), ids=str)
def test_library_imports_neither_flower_nor_the_other_folders(path):
    forbidden = ("flwr", "server", "clients", "simulations")
    forbidden_inside = tuple(f"fedtrain.{name}" for name in forbidden[1:])
    for level, name in list_imports(path):
        assert level == 0, f"{path}: relative import of {name}"
        assert name.split(".")[0] not in forbidden, f"{path} imports {name}"
        assert not name.startswith(forbidden_inside), f"{path} imports {name}"


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_other_folders_import_each_other_only_by_reference(folder):
    others = [name for name in FOLDERS[1:] if name != folder]
    for path in list_modules(folder):
        for level, name in list_imports(path):
            assert level < len(path.relative_to(ROOT).parts), (
                f"{path} imports from above its folder"
            )
            assert name.split(".")[0] not in others, f"{path} imports {name}"
            assert not name.startswith(tuple(f"fedtrain.{other}" for other in others))
            assert name.split(".")[0] != folder, f"{path}: import siblings relatively"


def test_only_dp_sgd_and_the_cross_check_import_opacus():
    """But for benchmarks, where it is a rival."""
    bench = ROOT / "simulations" / "bench"
    modules = [path for folder in FOLDERS for path in list_modules(folder)]
    users = {
        path.name
        for path in modules
        if bench not in path.parents
        and any(name.split(".")[0] == "opacus" for _, name in list_imports(path))
    }
    assert users == {"dp_sgd.py", "opacus_accounting.py"}


def test_legacy_flower_packages_are_not_imported():
    """But by the benchmark's rival: Flower has its SecAgg+ primitives nowhere else."""
    legacy = ("flwr.client", "flwr.server", "flwr.common", "flwr.compat")
    for path in (path for folder in FOLDERS for path in list_modules(folder)):
        if path.name == "secagg_rival.py":
            continue
        for _, name in list_imports(path):
            assert not any(name == old or name.startswith(f"{old}.") for old in legacy), path


def test_flower_internals_are_imported_by_the_adapters_only():
    for path in (path for folder in FOLDERS for path in list_modules(folder)):
        internal = [n for _, n in list_imports(path) if n.startswith("flwr.supercore")]
        assert not internal or path.name in ("flower.py", "grid.py"), (path, internal)


def test_every_package_on_disk_is_listed_for_installation():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = set()
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            on_disk.add(".".join(parts if parts[0] == "fedtrain" else ("fedtrain", *parts)))
    assert set(listed) == on_disk


def test_log_names_are_literal():
    for path in (path for folder in FOLDERS for path in list_modules(folder)):
        assert "getLogger(__name__)" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_is_named_after_nothing(folder):
    names = {path.stem for path in list_modules(folder)}
    assert not names & {"utils", "helpers", "common", "manager", "base", "misc"}
