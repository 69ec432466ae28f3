"""Statistics of a federation's sites by the messages of secure aggregation."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from clients.custody import create_custody
from fedtrain.cli import main
from fedtrain.config import load_config
from fedtrain.data.preparation import Preparation
from fedtrain.errors import ConfigError, DataError, RunFailedError
from fedtrain.ledger.verify import read_entries
from fedtrain.policy import Policy
from fedtrain.resolution import resolve
from fedtrain.scenarios import find_scenario
from simulations.opening import open_config
from simulations.progress import Silence
from simulations.simulate import reopen, simulate, start
from simulations.statistics import Noise, ask_sites, open_sites

SCENARIO = "breast_cancer_prepared"
HOSPITALS = """
[data]
source = "csv"
path = "{path}"
label = "ill"
classes = ["0", "1"]
validation_fraction = 0.0
bounds = {{age = [0, 100]}}
categories = {{sex = ["f", "m"]}}
[partition]
scheme = "natural"
"""


@pytest.fixture
def hospitals(tmp_path):
    """Return a scenario of three hospitals, and a folder of their patients twenty years on."""

    def write(name, shift):
        generator = np.random.default_rng(len(name))
        (tmp_path / name).mkdir()
        for site in ("a", "b", "c"):
            ages = np.clip(generator.normal(40 + shift, 10, 150), 0, 100).round()
            rows = [f"{age:g},{'fm'[i % 2]},{i % 2}" for i, age in enumerate(ages.tolist())]
            text = "\n".join(["age,sex,ill", *rows]) + "\n"
            (tmp_path / name / f"{site}.csv").write_text(text)
        return tmp_path / name

    path = tmp_path / "hospitals.toml"
    path.write_text(HOSPITALS.format(path=write("then", 0)))
    return path, write("now", 20)


def test_figures_of_a_secure_sum_are_those_of_the_pooled_records():
    answer = ask_sites(open_sites(SCENARIO, noised=False), correlation=True)
    figures, pooled = answer.build_figures(), load_breast_cancer()
    column = pooled.data[:, list(pooled.feature_names).index("worst radius")]
    assert figures.numeric[0].mean == pytest.approx(column.mean(), rel=1e-5)
    assert figures.numeric[0].variance == pytest.approx(column.var(), rel=1e-3)
    assert figures.labels.counts == {"malignant": 212, "benign": 357}


def test_noise_costs_what_was_asked_and_is_in_the_sum():
    sites = open_sites(SCENARIO, noised=True)
    answer = ask_sites(sites, columns=["worst radius"], noise=Noise(1.0, 1e-5))
    assert 0.98 <= answer.cost.epsilon <= 1.0
    errors = answer.sums[-2:] - [212, 357]
    assert 0 < np.abs(errors).max() < 6 * answer.noise_stddev


def test_exact_statistics_of_protected_records_are_refused():
    with pytest.raises(ConfigError, match="give --epsilon"):
        open_sites("digits", noised=False)


def test_statistics_of_protected_sites_are_refused():
    private = ["privacy.unit=site", "privacy.site.noise_multiplier=1.0"]
    private += ["privacy.site.max_update_norm=1.0", "secure_aggregation.mode=protocol"]
    private += ["federation.weighting=equal", "federation.select=last"]
    with pytest.raises(ConfigError, match="does not cover"):
        open_sites("digits_plain", private, noised=True)


def test_two_sites_are_too_few_to_hide_from_each_other():
    few = ["partition.sites=2", "secure_aggregation.mode=off"]
    with pytest.raises(ConfigError, match="cannot hide from each other"):
        open_sites("digits_plain", few, noised=False)


def test_site_of_too_many_records_is_named():
    with pytest.raises(DataError, match=r"site '.*' has more than 20 records"):
        ask_sites(open_sites(SCENARIO, noised=False), max_records=20)


def test_preparation_by_the_protocol_is_the_one_fitted_in_clear(tmp_path):
    config = load_config(find_scenario(SCENARIO), ["federation.rounds=1"])
    opened = open_config(resolve(config))
    run = start(opened, tmp_path / "run")
    simulate(run, Silence())
    tree = json.loads((tmp_path / "run" / "preparation.json").read_text())
    assert Preparation.from_json(tree) == opened.preparation
    assert all(column.clip is not None for column in opened.preparation.columns)


def test_stats_prints_one_json_object(capsys, tmp_path):
    pictures = tmp_path / "pictures"
    arguments = ["stats", SCENARIO, "--json", "--pictures", str(pictures)]
    assert main(arguments) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["sites"] == 5
    assert {path.name for path in pictures.iterdir()} == {"histograms.png", "correlation.png"}


def test_drift_of_one_column_says_retrain(hospitals, capsys):
    scenario, now = hospitals
    assert main(["drift", str(scenario), "--new", str(now), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["drifted"] == ["age"]


def test_same_data_does_not_drift(hospitals, capsys):
    scenario, now = hospitals
    assert main(["drift", str(scenario), "--new", str(now.parent / "then")]) == 0
    assert capsys.readouterr().out.endswith("no need to retrain\n")


def test_data_without_a_file_cannot_drift(capsys):
    assert main(["drift", SCENARIO, "--new", "x"]) == 2
    assert "reads no file" in capsys.readouterr().err


def test_drift_by_site_names_the_sites(hospitals, capsys):
    scenario, now = hospitals
    (now / "c.csv").write_text((now.parent / "then" / "c.csv").read_text())
    assert main(["drift", str(scenario), "--new", str(now), "--by-site", "--json"]) == 0
    by_site = json.loads(capsys.readouterr().out)["by_site"]
    assert [site for site, drift in by_site.items() if drift["retrain"]] == ["a", "b"]


class Interruption(Silence):
    """Ends a run after its first round."""

    def on_round(self, metrics):
        raise KeyboardInterrupt


def test_run_goes_on_with_the_preparation_that_it_began_with(tmp_path):
    config = load_config(find_scenario(SCENARIO), ["federation.rounds=2"])
    run = start(open_config(resolve(config)), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        simulate(run, Interruption())
    path = tmp_path / "run" / "preparation.json"
    tree = json.loads(path.read_text())
    tree["columns"][0]["center"] = 17.0  # as no sum would give it again
    path.write_text(json.dumps(tree))
    simulate(reopen(tmp_path / "run", None), Silence())
    saved = json.loads((tmp_path / "run" / "model.json").read_text())["preparation"]
    assert saved["columns"][0]["center"] == 17.0


@pytest.mark.parametrize(("new", "bins"), [("then", 20), (None, 10)], ids=["data", "question"])
def test_noise_of_two_sums_does_not_cancel(hospitals, new, bins):
    scenario, now = hospitals
    noise = Noise(target_epsilon=1.0, target_delta=1e-5)
    path = None if new is None else str(now.parent / new)  # the same data once more
    sites = [open_sites(str(scenario), noised=True, path=where) for where in (None, path)]
    pair = zip(sites, (20, bins), strict=True)
    first, second = (ask_sites(one, bins=count, noise=noise) for one, count in pair)
    assert abs(float(first.sums[0] - second.sums[0])) > 0.01 * first.noise_stddev


def ask_folders(hospitals, folder):
    """Ask the hospitals' sites, which have folders of their own; return the cost of a sum."""
    scenario, _ = hospitals
    sites = open_sites(str(scenario), [f"simulation.sites_directory={folder}"], noised=True)
    return ask_sites(sites, noise=Noise(target_epsilon=1.0, target_delta=1e-5)).cost


def test_simulated_sites_with_folders_pay_in_their_ledgers(hospitals, tmp_path):
    for site in ("a", "b", "c"):
        create_custody(tmp_path / "sites" / site, site, policy=Policy(statistics=True))
    for _ in range(2):
        ask_folders(hospitals, tmp_path / "sites")
    for site in ("a", "b", "c"):
        entries = read_entries(tmp_path / "sites" / site / "ledger")
        assert [entry.body.kind for entry in entries].count("committed") == 2


def test_simulated_sites_with_folders_refuse_by_default(hospitals, tmp_path):
    with pytest.raises(RunFailedError, match="policy: statistics"):
        ask_folders(hospitals, tmp_path / "sites")


def test_scenario_that_asks_for_itself_is_not_asked_otherwise():
    with pytest.raises(ConfigError, match="fedtrain simulate runs it"):
        open_sites(SCENARIO, ["statistics.bins=10"], noised=False)


def test_check_says_what_a_question_costs_and_not_a_training(capsys):
    assert main(["check", SCENARIO, "--set", "statistics.target_epsilon=1.0"]) == 0
    out = capsys.readouterr().out
    assert "A record pays epsilon 1.000 at delta 1e-05" in out
    assert "model" not in out


def test_simulated_run_that_asks_is_verified(tmp_path, capsys):
    out = tmp_path / "run"
    asked = ["simulate", SCENARIO, "--set", "statistics.target_epsilon=1.0", "--quiet"]
    assert main([*asked, "--out", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    assert "what the sites were asked" in capsys.readouterr().out


def test_what_noised_figures_cost_fits_a_terminal(hospitals, capsys):
    path, _ = hospitals
    assert main(["stats", str(path), "--epsilon", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("epsilon 2 at delta") for line in lines)
    assert max(map(len, lines)) <= 100
