"""`fedtrain report` and `fedtrain verify` on reports, as a user types them."""

import shutil
from pathlib import Path

import pytest

from fedtrain import cli
from fedtrain.ledger.budget import Budget
from fedtrain.ledger.site_ledger import SiteLedger
from fedtrain.report.compare_page import render_comparison_page
from fedtrain.report.files import REPORT, read_report
from fedtrain.report.run import load_run
from fedtrain.secagg.files import create_identity, load_identity
from tests.report.examples import EXAMPLE, Page, copy_example

Capture = pytest.CaptureFixture[str]


def test_report_prints_the_files_that_it_wrote(tmp_path: Path, capsys: Capture) -> None:
    path = copy_example(tmp_path)
    assert cli.main(["report", str(path)]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["report.json", "report.html", "model_card.md", "registry.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RUN is missing"),
        (["a", "b"], "a report is of one, --compare of several"),
        (["nowhere"], "no such run"),
        ([str(EXAMPLE), "--compare"], "--compare of 1 run"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, capsys: Capture) -> None:
    assert cli.main(["report", *arguments]) in (2, 3)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_report_alone_says_what_it_could_not_check(tmp_path: Path, capsys: Capture) -> None:
    path = shutil.copy(EXAMPLE / REPORT, tmp_path / REPORT)
    assert cli.main(["verify", str(path)]) == 0
    assert "needs the run directory" in capsys.readouterr().out
    assert cli.main(["verify", str(path), "--roster", "x"]) == 2


def test_changed_figure_of_a_report_alone_ends_with_the_auditors_code(tmp_path, capsys) -> None:
    path = tmp_path / REPORT
    text = (EXAMPLE / REPORT).read_text()
    assert '"mu": 0.' in text
    path.write_text(text.replace('"mu": 0.', '"mu": 1.', 1))
    assert cli.main(["verify", str(path)]) == 8
    assert "its digest is not that of its content" in capsys.readouterr().err


def test_report_in_its_run_is_verified_with_the_run(capsys: Capture) -> None:
    assert cli.main(["verify", str(EXAMPLE / REPORT)]) == 0
    assert "signatures of secure sums" in capsys.readouterr().out


def make_site(folder: Path, name: str) -> None:
    """Make a site's folder as its owner has it, with a budget of which nothing is spent."""
    folder.mkdir()
    (folder / "site.toml").write_text(f'name = "{name}"\n')
    create_identity(folder / "identity.key")
    identity = load_identity(folder / "identity.key")
    budget = Budget(epsilon=8.0, delta=1e-6)
    SiteLedger.create(folder / "ledger", name, budget=budget, identity=identity)


def test_site_signs_its_lines_and_its_lifetime_budget(tmp_path: Path, capsys: Capture) -> None:
    path = copy_example(tmp_path)
    make_site(tmp_path / "va", "va")
    assert cli.main(["report", str(path), "--site", str(tmp_path / "va")]) == 0
    assert cli.main(["report", str(path)]) == 0
    assert cli.main(["verify", str(path)]) == 0
    sites = {one.site: one for one in read_report(path / REPORT).report.spending.sites}
    assert sites["va"].lifetime is not None
    assert sites["va"].lifetime.epsilon == 8.0
    assert sites["cleveland"].lifetime is None
    page = (path / "report.html").read_text()
    assert "Epsilon for life, so far" in page


def test_site_that_is_in_no_line_of_the_run_signs_none(tmp_path: Path, capsys: Capture) -> None:
    path = copy_example(tmp_path)
    make_site(tmp_path / "stranger", "stranger")
    assert cli.main(["report", str(path), "--site", str(tmp_path / "nobody")]) == 5
    assert cli.main(["report", str(path), "--site", str(tmp_path / "stranger")]) == 8
    assert "no site of the run" in capsys.readouterr().err


def test_comparison_draws_runs_and_says_what_cannot_be_compared(make_run) -> None:
    runs = [
        load_run(make_run(name, private=private))
        for name, private in (("private", True), ("open", False))
    ]
    text = render_comparison_page(runs)
    page = Page(text)
    assert len(page.find("svg")) == 1
    assert "cannot be compared" in text
    assert "Without a finite epsilon" in text


def test_comparison_is_written_where_it_is_asked_for(make_run, tmp_path: Path, capsys) -> None:
    paths = [str(make_run(name, private=True)) for name in ("a", "b")]
    assert cli.main(["report", "--compare", *paths, "--out", str(tmp_path / "there")]) == 0
    page = tmp_path / "there" / "comparison.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert "Utility against privacy" in page.read_text()
