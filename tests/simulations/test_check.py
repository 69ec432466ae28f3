import pytest

from fedtrain import cli


def check(capsys, scenario, *overrides) -> str:
    options = [part for override in overrides for part in ("--set", override)]
    assert cli.main(["check", scenario, *options]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_check_says_what_would_run_and_what_it_would_cost(capsys):
    out = check(capsys, "digits")
    assert "2,410 parameters" in out
    assert "FedAvgM, 30 rounds, 4 steps" in out
    assert "protocol, 7 of 10 sites needed" in out
    assert "noise multiplier 1.84" in out
    assert "30 8.00" in out


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("off", "every site's update is released as it is."),
        ("protocol", "no single update is released in plain, but their sums are"),
        ("arithmetic", "not masked"),
    ],
)
def test_check_says_in_words_that_there_is_no_privacy(capsys, mode, sentence):
    out = check(capsys, "digits_plain", f"secure_aggregation.mode={mode}")
    assert "No differential privacy:" in out
    assert sentence in out
