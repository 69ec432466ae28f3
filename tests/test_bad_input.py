"""Bad input, as a user meets it: one line that says what to do, and nothing lost or left behind."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from fedtrain import cli

HOSPITALS = """
[secure_aggregation]
mode = "off"
[data]
source = "csv"
path = "hospitals"
label = "sick"
validation_fraction = 0.0
[partition]
scheme = "natural"
[model]
name = "logistic"
[federation]
rounds = 2
"""
PRIVATE = """
[secure_aggregation]
mode = "off"
[data]
source = "sklearn:digits"
[partition]
sites = 4
[training]
sampling = "poisson"
sample_rate = 0.2
expected_batch_size = 50
[federation]
rounds = 1
[privacy]
unit = "record"
noise_multiplier = 1.0
"""
OWN = """
import numpy as np
import torch
from torch import nn

def build(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def build_with_batch_norm(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, classes))

def build_raising(input_shape, classes):
    return 1 / 0

class Mixing(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(64, classes)
    def forward(self, x):
        return self.layer((x - x.mean(0)).flatten(1))

def build_mixing(input_shape, classes):
    return Mixing(classes)

class NeverBackward(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(64, classes)
    def forward(self, x):
        if torch.is_grad_enabled():
            raise RuntimeError("not in this mode")
        return self.layer(x.flatten(1))

def build_never_backward(input_shape, classes):
    return NeverBackward(classes)

def load_raising():
    raise KeyError("column 7")
def load_nan():
    x = np.ones((40, 64), np.float32)
    x[3, 2] = np.nan
    return {"north": (x[20:], np.arange(20) % 2), "south": (x[:20], np.arange(20) % 2)}
"""


def write_hospital(path: Path, *, rows: int, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    path.parent.mkdir(exist_ok=True)
    cells = [f"{20 + 60 * generator.random():.1f},{i % 2},{i % 2}" for i in range(rows)]
    path.write_text("\n".join(["age,smokes,sick", *cells]) + "\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with scenarios of two hospitals and of DP, and code of the user's."""
    (tmp_path / "hospitals.toml").write_text(HOSPITALS)
    (tmp_path / "private.toml").write_text(PRIVATE)
    (tmp_path / f"own_{tmp_path.name}.py").write_text(OWN)
    (tmp_path / f"own_{tmp_path.name}_broken.py").write_text("raise OSError('no licence')\n")
    for seed, name in enumerate(("north", "south")):
        write_hospital(tmp_path / "hospitals" / f"{name}.csv", rows=60, seed=seed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture
def own(folder: Path) -> str:
    """Name of the module of the user's own."""
    return f"own_{folder.name}"


@pytest.fixture
def refuse(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command that must be refused, and returns its one line."""

    def run(*argv: str, code: int) -> str:
        before = read_tree(folder)
        assert cli.main(argv) == code
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("fedtrain")
        assert output.err.count("\n") == 1
        assert "Traceback" not in output.err
        assert read_tree(folder) == before
        return output.err

    return run


def read_tree(folder: Path) -> dict[str, bytes | None]:
    """Return every path below a folder, and what is in it; compiled modules left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def to_options(overrides: Iterable[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


@pytest.mark.parametrize("command", ["simulate", "check"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("federation.round=3", "unknown key federation.round; did you mean federation.rounds?"),
        ("nosection.key=1", "unknown key nosection"),
        ("federation.rounds=many", 'federation.rounds = "many": input should be a valid integer'),
        ("federation.rounds=true", "federation.rounds = true"),
        ("training.learning_rate=nan", "input should be a finite number"),
        ("federation", "--set federation: write section.key=value"),
        ("federation.sites_per_round=20", "= 20 is above partition.sites = 4; lower it"),
        ("federation.min_survivors=5", "min_survivors = 5 is above the number of sites, 4"),
        ("privacy.target_epsilon=1e-9", "above privacy.target_epsilon = 1e-09"),
        ("training.sampling=shuffle", "'shuffle' cannot be accounted"),
        ("data.preparation=standardise", "would release means and variances"),
        ("federation.weighting=examples", "would release each site's record count"),
        ("federation.strategy_options.speed=1", "FedAvg has no such parameter"),
        ("federation.strategy=FedBest", "input should be 'FedAvg'"),
        ("partition.sites=5000", "partition.sites = 5000 with at least 1 records each"),
        ("data.central_test=true", "has no test set of its own"),
        ("data.source=nowhere:load", "there is no module 'nowhere'"),
        ("data.path=elsewhere", "data.path = 'elsewhere' has no effect"),
        ("model.name=mlpp", "did you mean 'mlp'?"),
        ("run.name=Zürich", 'run.name = "Zürich": string should match'),
    ],
)
def test_config_that_cannot_run_is_refused(refuse, command, override, message):
    code = 6 if override == "partition.sites=5000" else 2
    assert message in refuse(command, "private.toml", "--set", override, code=code)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("partition.sites=2", "a cohort of 2 sites is below secure_aggregation.min_cohort = 3"),
        ("federation.strategy=Krum", "works on single updates, which secure aggregation hides"),
        ("secure_aggregation.threshold=2", "= 2 is not between 3 (more than two thirds"),
        ("secure_aggregation.ring_bits=40", "ring_bits = 40: input should be less than"),
    ],
)
def test_what_secure_aggregation_cannot_hide_is_refused(refuse, override, message):
    options = to_options(["secure_aggregation.mode=protocol", override])
    assert message in refuse("simulate", "private.toml", *options, code=2)


def test_preparation_by_single_sites_sums_is_refused_under_secure_aggregation(refuse):
    option = "secure_aggregation.mode=protocol"
    assert "standardise" in refuse("simulate", "hospitals.toml", "--set", option, code=2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["federation.sites_per_round=3"], "= 3 is above partition.sites = 2"),
        (["federation.strategy=Bulyan"], "needs at least 3 sites a round, there are 2"),
        (
            ["federation.strategy=Krum", "federation.strategy_options.num_malicious_nodes=1"],
            "'Krum' with num_malicious_nodes = 1 needs at least 5 sites a round, there are 2",
        ),
        (["partition.sites=3"], "partition.sites = 3 but the data has 2 natural sites"),
        (["data.label='sik > 0'"], "'sik' does not exist; did you mean 'sick'?"),
    ],
)
def test_what_does_not_go_with_the_data_is_refused(refuse, overrides, message):
    code = 6 if "data.label" in overrides[0] else 2
    for command in ("simulate", "check"):
        assert message in refuse(command, "hospitals.toml", *to_options(overrides), code=code)


def test_unreachable_epsilon_says_what_would_reach_it(refuse, folder):
    text = PRIVATE.replace("noise_multiplier = 1.0", "target_epsilon = 1e-9")
    (folder / "tiny.toml").write_text(text)
    error = refuse("simulate", "tiny.toml", code=2)
    assert "target_epsilon = 1e-09 is unreachable" in error
    assert "raise target_epsilon" in error


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("build_with_batch_norm", "(BatchNorm1d) mixes the records of a batch"),
        ("build_mixing", "a record's logits change with the other records of its batch"),
        ("build_raising", "raised ZeroDivisionError: division by zero"),
        ("build_never_backward", "cannot be trained (RuntimeError: not in this mode)"),
        ("buidl", "has no function 'buidl'; it has build"),
    ],
)
def test_own_model_that_cannot_train_is_refused(refuse, own, function, message):
    for command in ("simulate", "check"):
        options = ["--set", f"model.name={own}:{function}"]
        assert message in refuse(command, "private.toml", *options, code=2)


def test_own_module_that_raises_is_refused(refuse, own):
    option = f"model.name={own}_broken:build"
    error = refuse("simulate", "private.toml", "--set", option, code=2)
    assert "cannot be imported (OSError: no licence); mend it" in error


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        ("load_raising", 2, "raised KeyError: 'column 7'; mend it"),
        ("load_nan", 6, "site 'south': feature index 2 holds NaN"),
    ],
)
def test_own_data_that_cannot_be_used_is_refused(refuse, folder, own, function, code, message):
    text = 'secure_aggregation.mode = "off"\n[data]\nsource = "{}"\n[partition]\nscheme = "natural"'
    (folder / "own.toml").write_text(text.format(f"{own}:{function}"))
    assert message in refuse("simulate", "own.toml", code=code)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("age,smokes,sick\n30,0,0\n40,1\n", "south.csv line 3 has 2 fields, its header has 3"),
        ("age,smokes,sick\n30,0,0\n40,1,0,1\n", "south.csv line 3 has 4 fields"),
        ("", "south.csv is empty; it needs a header and rows"),
        ("age,smokes,sick\n", "south.csv has a header and no rows"),
        ("age,smokes,sick\n30,0,\n40,1,?\n", "site 'south' has no rows with a label"),
        ("age,smokes,sick\n30,inf,0\n40,1,1\n", "site 'south'"),
        ("age,smokes,sick\n30,1e300,0\n40,1,1\n", "site 'south'"),
        ("\x00\xff\xfe", "south.csv"),
    ],
)
def test_table_that_cannot_be_used_is_refused_with_its_site(refuse, folder, content, message):
    (folder / "hospitals" / "south.csv").write_text(content)
    assert message in refuse("simulate", "hospitals.toml", code=6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.path=nowhere"], "data.path = 'nowhere' does not exist"),
        (["data.path=runs.d"], "there is no .csv file"),
        (["data.label=sik"], "label column 'sik' does not exist; did you mean 'sick'?"),
        (["data.source=npz", "data.label="], "is a folder, data.source = 'npz' needs a file"),
        (["data.source=idx", "data.label="], "are not both there; check data.path"),
    ],
)
def test_data_that_is_not_there_is_refused(refuse, folder, overrides, message):
    (folder / "runs.d").mkdir()
    assert message in refuse("simulate", "hospitals.toml", *to_options(overrides), code=6)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 2, "SCENARIO is missing"),
        (["hospital"], 2, "no such file and no shipped scenario"),
        (["hospitals"], 2, "a folder; give a TOML file"),
        (["x" * 300], 2, "File name too long"),
        (["hospitals/north.csv"], 2, "not valid TOML"),
        (["hospitals.toml", "--out", "hospitals"], 3, "exists and is not empty"),
        (["hospitals.toml", "--out", "private.toml"], 3, "is a file; choose another --out"),
        (["hospitals.toml", "--out", "private.toml/run"], 3, "cannot be made (Not a directory)"),
        (["hospitals.toml", "--out", "y" * 300], 3, "cannot be made (File name too long)"),
        (["--resume", "hospitals"], 3, "holds no committed run (no state.json)"),
        (["--resume", "nowhere"], 3, "no such run directory; fedtrain runs"),
        (["digits", "--out", "a", "--resume", "b"], 2, "not allowed with argument"),
        (["digits", "--quiet", "--json"], 2, "not allowed with argument"),
    ],
)
def test_arguments_that_name_nothing_usable_are_refused(refuse, argv, code, message):
    assert message in refuse("simulate", *argv, code=code)


def test_binary_scenario_is_refused(refuse, folder):
    (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read (not UTF-8 text)" in refuse("simulate", "binary.toml", code=2)


def test_refusal_is_the_same_from_a_shell(folder):
    command = [sys.executable, "-m", "fedtrain", "simulate", "hospitals.toml", "--set"]
    done = subprocess.run([*command, "data.label=sik"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 6
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "did you mean 'sick'?" in done.stderr
