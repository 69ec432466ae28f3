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


SITE = """
[partition]
sites = 40
[privacy]
unit = "site"
[privacy.site]
noise_multiplier = 2.0
target_delta = 1e-4
max_update_norm = 0.5
"""


def check_text(capsys, tmp_path, text, *overrides):
    (tmp_path / "site.toml").write_text(text)
    return check(capsys, str(tmp_path / "site.toml"), *overrides)


@pytest.mark.parametrize(("sites", "swamps"), [(10, True), (200, False)])
def test_check_says_how_much_noise_lies_on_a_mean_update(capsys, tmp_path, sites, swamps):
    out = check_text(capsys, tmp_path, SITE, f"partition.sites={sites}")
    relative = {10: "0.26", 200: "0.013"}[sites]  # 2 x sqrt(n / honest survivors) / n
    assert f"update: {relative} of the clip, over {sites} sites a round" in out
    assert ("That swamps the update" in out) == swamps


def test_check_says_what_the_coordinator_could_hold_against_a_sampled_site(capsys, tmp_path):
    out = check_text(capsys, tmp_path, SITE, "federation.site_sample_rate=0.5")
    assert "rounds epsilon to the coordinator, at most" in out
    last = out[out.index("at most") :].partition(" 10 ")[2].split()
    assert float(last[0]) < float(last[1])


def test_check_says_what_is_not_sent_or_not_covered(capsys, tmp_path):
    assert "no site sends a loss" in check_text(capsys, tmp_path, SITE)
    out = check_text(capsys, tmp_path, SITE, "privacy.metrics=uncovered")
    assert "Not covered: the metrics" in out
    assert "no site sends a loss" not in out


def test_check_says_that_mode_arithmetic_protects_no_site_from_the_coordinator(capsys, tmp_path):
    out = check_text(capsys, tmp_path, SITE, "secure_aggregation.mode=arithmetic")
    assert "no site has a guarantee against it" in out


def test_check_of_both_units_has_a_table_for_each(capsys, tmp_path):
    poisson = 'sampling="poisson"\nsample_rate=0.1\nexpected_batch_size=10\nlocal_steps=2'
    text = SITE.replace('"site"', '"record_and_site"\nnoise_multiplier = 1.0')
    out = check_text(capsys, tmp_path, f"[training]\n{poisson}\n{text}")
    assert "What a site pays, by the rounds that it takes part in: record-level privacy" in out
    assert "What is paid for a whole site, by the rounds that it joins: delta 0.0001" in out


def test_check_says_which_column_has_too_many_categories(capsys, tmp_path):
    """A name or a date that nobody meant to train on is an input for each of its values."""
    rows = [f"p{i},{i % 7},{'ab'[i % 2]},s{i % 3}" for i in range(300)]
    (tmp_path / "t.csv").write_text("\n".join(["patient,age,label,site", *rows]))
    (tmp_path / "t.toml").write_text(
        f"[data]\nsource = 'csv'\npath = '{tmp_path / 't.csv'}'\nlabel = 'label'\n"
        "site_column = 'site'\n[partition]\nscheme = 'natural'\n"
        "[secure_aggregation]\nmode = 'off'\n"
    )
    out = check(capsys, str(tmp_path / "t.toml"))
    assert "1 of numbers, 1 of categories; patient has" in out
    assert "leave it out of data.columns" in out
    out = check(capsys, str(tmp_path / "t.toml"), 'data.columns=["age"]')
    assert "1 of numbers, 0 of categories sites" in out
