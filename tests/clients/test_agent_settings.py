import pytest

from clients.agent_settings import AgentSettings, load_settings, save_settings
from fedtrain.errors import ConfigError


def test_settings_are_read_back(tmp_path):
    settings = AgentSettings(coordinator="train.example.org:7443", threads=2, stop_seconds=5.0)
    save_settings(tmp_path, settings)
    assert load_settings(tmp_path) == settings


def test_file_explains_every_key(tmp_path):
    save_settings(tmp_path, AgentSettings())
    text = (tmp_path / "agent.toml").read_text()
    assert all(f"# {key} = " in text for key in AgentSettings.model_fields)


def test_missing_file_is_an_empty_one(tmp_path):
    assert load_settings(tmp_path) == AgentSettings()


def test_unknown_key_is_refused_with_the_nearest(tmp_path):
    (tmp_path / "agent.toml").write_text("data_pth = 'x'")
    with pytest.raises(ConfigError, match="data_path"):
        load_settings(tmp_path)


@pytest.mark.parametrize("text", ["threads = 'two'", "metrics_port = 70000", "threads = ["])
def test_impossible_settings_are_refused(tmp_path, text):
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"agent\.toml"):
        load_settings(tmp_path)
