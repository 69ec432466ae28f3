"""Runs with site-level privacy: every page and picture says whose epsilon it shows."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from PIL import Image

from fedtrain.report.compare import name_runs, render_comparison
from fedtrain.report.curves import draw_comparison, draw_curves, draw_privacy
from fedtrain.report.guarantees import list_guarantees
from fedtrain.report.privacy import describe_privacy
from fedtrain.report.run import Run, load_run
from fedtrain.report.summary import build_summary, render_rounds, render_summary
from fedtrain.report.tables import make_console

MakeRun = Callable[..., Path]
SITE = {"noise_multiplier": 1.5, "max_update_norm": 0.5, "target_delta": 1e-4}
POISSON = {"sampling": "poisson", "sample_rate": 0.25, "expected_batch_size": 32, "local_steps": 4}
SUPPRESSED = {"metrics": "suppressed"}
CONFIGS: dict[str, dict[str, Any]] = {
    "site": {"privacy": {"unit": "site", "site": SITE | {"target_epsilon": 30.0}} | SUPPRESSED},
    "adaptive": {"privacy": {"unit": "site", "site": SITE | {"clipping": "adaptive"}} | SUPPRESSED},
    "sampled": {
        "privacy": {"unit": "site", "site": SITE, "metrics": "uncovered"},
        "federation": {"rounds": 30, "site_sample_rate": 0.5},
    },
    "both": {
        "privacy": {
            "unit": "record_and_site",
            "target_epsilon": 8.0,
            "site": SITE,
            "metrics": "uncovered",
        },
        "training": POISSON,
    },
    "all": {
        "privacy": {
            "unit": "person_and_site",
            "noise_multiplier": 1.0,
            "site": SITE | {"clipping": "adaptive"},
            "metrics": "uncovered",
        },
        "training": POISSON,
        "federation": {"rounds": 30, "site_sample_rate": 0.5},
    },
}


@pytest.fixture
def load(make_run: MakeRun) -> Callable[..., Run]:
    """Return a function that returns a run of a kind, its metrics as such a run has them."""

    def make(kind: str, **changes: Any) -> Run:
        config = {key: dict(table) for key, table in CONFIGS[kind].items()}
        for key, change in changes.items():
            config[key] = config.get(key, {}) | change
        state = {"accountant": "pld", "site_accountant": "rdp"}
        run = load_run(make_run(kind, config=config, state=state, rounds=20))
        for line in run.metrics:
            if config["privacy"]["metrics"] == "suppressed":
                for key in [key for key in line if key.startswith(("test_", "val_", "train_"))]:
                    del line[key]
            for index, one in enumerate(list_guarantees(run.config)):
                line |= {one.key: (1.0 + index) * line["round"], one.delta_key: 10.0 ** (index - 5)}
            if config["privacy"]["site"].get("clipping") == "adaptive":
                line["update_norm"] = 0.05 * 1.05 ** line["round"]
        return run

    return make


def show(renderable: object, width: int = 80) -> str:
    """Return what a terminal of so many columns shows."""
    console = make_console(io.StringIO())
    console.width = width
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize(
    ("kind", "prefixes", "units"),
    [
        ("site", ["epsilon"], ["site"]),
        ("sampled", ["epsilon", "coordinator_epsilon"], ["site", "site"]),
        ("both", ["epsilon", "site_epsilon"], ["record", "site"]),
        (
            "all",
            ["epsilon", "site_epsilon", "coordinator_epsilon"],
            ["person", "site", "site"],
        ),
    ],
)
def test_epsilons_of_a_run_are_listed_with_their_units(load, kind, prefixes, units) -> None:
    guarantees = list_guarantees(load(kind).config)
    assert [one.key for one in guarantees] == prefixes
    assert [one.unit for one in guarantees] == units


def test_run_without_privacy_has_no_epsilon() -> None:
    assert list_guarantees({"privacy": {"unit": "none"}}) == list_guarantees({}) == []


STATEMENTS = {
    "site": [
        "Differential privacy for one whole site: epsilon = 20.00 at delta = 1e-05 for rounds 1",
        "replacing a site's update by zeros changes the probability of whatever the models",
        "planned to cost at most 30.",
        "enough of it by the fewest survivors even if 10% of a cohort side with the coordinator",
        "Not covered: the choice of settings and that a site takes part at all.",
    ],
    "sampled": [
        "holds against those who see the models and not who took part",
        "it is 40.00 at delta = 0.0001",
        "Not covered: the metrics that sites report",
    ],
    "both": [
        "Differential privacy for one record of a site: epsilon = 20.00",
        "And for one whole site: epsilon = 40.00 at delta = 0.0001 (accountant rdp).",
        "a person who has several records, and that a site takes part at all.",
    ],
    "all": ["for one person with all records at a site", "a person with records at several sites"],
}


@pytest.mark.parametrize("kind", STATEMENTS)
def test_statement_says_what_holds_for_whom(load, kind: str) -> None:
    text = describe_privacy(load(kind))
    for part in STATEMENTS[kind]:
        assert part in text


def test_replacement_of_a_site_is_spelt_out(load) -> None:
    text = describe_privacy(load("site", privacy={"neighbouring_relation": "replace_one"}))
    assert "replacing a site's update by another changes the probability" in text


@pytest.mark.parametrize("kind", ["site", "both"])
def test_mode_arithmetic_is_no_guarantee_against_the_coordinator(load, kind: str) -> None:
    text = describe_privacy(load(kind, secure_aggregation={"mode": "arithmetic"}))
    assert "no site has a guarantee against it" in text
    assert "fewest survivors" not in text


def test_unbounded_epsilon_of_a_site_is_no_guarantee(load) -> None:
    run = load("both")
    for line in run.metrics:
        del line["site_epsilon"]
    assert "No guarantee for a whole site" in describe_privacy(run)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("site", ["site: noise multiplier 1.5, clip 0.5", "Metrics are suppressed"]),
        ("adaptive", ["clip 0.133, adaptive, at most 0.5"]),
        ("both", ["record: noise multiplier", "; site: noise multiplier 1.5, clip 0.5"]),
    ],
)
def test_summary_names_noise_and_clip_of_each_unit(load, kind, parts) -> None:
    text = " ".join(show(render_summary(load(kind)), width=200).split())
    assert all(part in text for part in parts)


@pytest.mark.parametrize("kind", CONFIGS)
def test_rounds_fit_80_columns_with_every_epsilon(load, kind: str) -> None:
    text = show(render_rounds(load(kind)))
    assert "…" not in text
    assert "20.00" in text


def test_columns_of_several_epsilons_name_their_units(load) -> None:
    text = " ".join(show(render_rounds(load("all"))).split())
    assert "person site coord." in text
    assert "20.00 40.00 60.00 0.133" in text


def test_json_has_every_epsilon_with_its_delta(load) -> None:
    spent = build_summary(load("all"))["privacy"]["guarantees"]
    assert [(one["unit"], one["epsilon"], one["delta"]) for one in spent] == [
        ("person", 20.0, 1e-5),
        ("site", 40.0, 1e-4),
        ("site", 60.0, 1e-3),
    ]


def test_comparison_has_a_row_for_each_unit(load) -> None:
    text = show(render_comparison([load("both"), load("sampled")]), width=200)
    rows = {line.split("  ")[0].strip(): line.split()[-2:] for line in text.splitlines() if line}
    assert rows["unit"] == ["record_and_site", "site"]
    assert rows["epsilon"] == ["20.00", "20.00"]
    assert rows["epsilon, site"] == ["40.00", "-"]
    assert rows["epsilon, to coordinator"] == ["-", "40.00"]
    assert "These epsilons cannot be compared" in text


def test_epsilons_of_one_unit_are_compared(load) -> None:
    text = show(render_comparison([load("site"), load("adaptive")]), width=200)
    assert "cannot be compared" not in text


# Pictures


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return all texts that are put on pictures."""
    texts: list[str] = []
    for name, place in (("annotate", 0), ("text", 2), ("set_ylabel", 0), ("set_xlabel", 0)):
        original = getattr(Axes, name)

        def record(
            axes: Axes, *given: Any, original: Any = original, place: int = place, **more: Any
        ):
            texts.append(str(given[place]))
            return original(axes, *given, **more)

        monkeypatch.setattr(Axes, name, record)
    return texts


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("site", ["epsilon of one site (at delta = 1e-05)", "target of the whole run: 30"]),
        ("adaptive", ["L2 clip of an update", "0.133"]),
        ("sampled", ["one site: 20.00", "to the coordinator: 40.00"]),
        ("both", ["one record: 20.00", "one site: 40.00", "epsilon of one record spent so far"]),
        ("all", ["one person: 20.00", "epsilon (delta: person 1e-05, site 0.0001)"]),
    ],
)
def test_picture_says_whose_epsilon_it_is(load, tmp_path, written, kind, parts) -> None:
    run = load(kind)
    draw_privacy(run.metrics, tmp_path / "privacy.png", config=run.config)
    with Image.open(tmp_path / "privacy.png") as image:
        assert image.size == (1500, 630)
    assert set(parts) <= set(written)


def test_pictures_say_that_metrics_are_suppressed(load, tmp_path, written) -> None:
    run = load("site")
    draw_curves(run.metrics, tmp_path / "curves.png", config=run.config)
    draw_privacy(run.metrics, tmp_path / "privacy.png", config=run.config)
    assert sum(text.startswith("metrics are suppressed") for text in written) == 3


@pytest.mark.parametrize(
    ("kinds", "label"),
    [
        (["sampled", "sampled"], "epsilon of one site (at the delta of the run)"),
        (["both", "sampled"], "epsilon (not comparable: of one record, of one site)"),
    ],
)
def test_axis_of_a_comparison_names_the_unit(load, tmp_path, monkeypatch, kinds, label) -> None:
    labels: list[str] = []
    original = Axes.set_xlabel
    monkeypatch.setattr(
        Axes, "set_xlabel", lambda axes, text, **more: labels.append(text) or original(axes, text)
    )
    made = {kind: load(kind) for kind in dict.fromkeys(kinds)}
    runs = [made[kind] for kind in kinds]
    draw_comparison(runs, tmp_path / "c.png", labels=name_runs(runs))
    assert label in labels


def test_run_that_was_stopped_before_a_round_shows(load) -> None:
    run = load("both")
    run.metrics.clear()
    assert "nothing is spent" in describe_privacy(run)
    assert json.dumps(build_summary(run))
    assert show(render_rounds(run))
