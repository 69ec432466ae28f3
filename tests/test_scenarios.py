"""Scenarios are found by file or by name."""

from pathlib import Path

import pytest

from fedtrain.config import load_config
from fedtrain.errors import ConfigError
from fedtrain.scenarios import find_scenario, list_scenarios, read_headline


def test_file_is_found_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("")
    assert find_scenario(str(path)) == path


def test_missing_file_is_refused_with_what_ships(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"zzz\.toml: no such file and no shipped scenario; "):
        find_scenario(str(tmp_path / "zzz.toml"))


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder; give a TOML file"):
        find_scenario(str(tmp_path))


def test_shipped_scenarios_are_found_by_name_and_load() -> None:
    shipped = list_scenarios()
    assert list(shipped) == sorted(shipped)
    for name, path in shipped.items():
        assert find_scenario(name) == find_scenario(f"{name}.toml") == path
        assert read_headline(path)
        load_config(path)


def test_near_miss_of_a_shipped_name_is_suggested() -> None:
    for name in list_scenarios():
        with pytest.raises(ConfigError, match=f"did you mean {name}"):
            find_scenario(f"{name}x")


def test_headline_is_the_first_comment(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("# Ten sites.\n[run]\n")
    assert read_headline(path) == "Ten sites."
    path.write_text("[run]\n")
    assert read_headline(path) == ""
