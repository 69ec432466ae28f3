import pytest

from fedtrain.errors import ConfigError
from server.settings import ServerSettings, choose_listen, load_settings, save_settings


def test_settings_are_read_back(tmp_path):
    settings = ServerSettings(address="train.example.org:7443", wait_for_sites=60.0)
    save_settings(tmp_path, settings)
    assert load_settings(tmp_path) == settings
    assert "# metrics_port = 0" in (tmp_path / "server.toml").read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("address = 'x:1'\npoll_second = 3", "poll_seconds"),
        ("address = 'x'", "HOST:PORT"),
        ("address", "TOML"),
        ("address = 'x:1'\npoll_seconds = 0", "poll_seconds"),
    ],
)
def test_settings_that_do_not_hold_are_refused(tmp_path, text, reason):
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load_settings(tmp_path)


def test_folder_without_settings_is_no_coordinators(tmp_path):
    with pytest.raises(ConfigError, match="server init"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("address", "listen", "chosen"),
    [
        ("127.0.0.1:7443", "", "127.0.0.1:7443"),
        ("localhost:7443", "", "localhost:7443"),
        ("[::1]:7443", "", "[::1]:7443"),
        ("train.example.org:7443", "", "[::]:7443"),
        ("10.0.0.7:7443", "", "[::]:7443"),
        ("train.example.org:443", "0.0.0.0:7443", "0.0.0.0:7443"),
    ],
)
def test_loopback_address_is_served_on_loopback_only(address, listen, chosen):
    assert choose_listen(ServerSettings(address=address, listen=listen)) == chosen
