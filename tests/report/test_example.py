"""The committed example is what today's code writes from its run, and it verifies."""

import json
import shutil

import pytest

from fedtrain import cli
from fedtrain.report.document import build_schema
from fedtrain.report.files import REPORT, read_report
from fedtrain.report.standalone import verify_report
from fedtrain.report.verify import verify_run
from fedtrain.seal import REPORT_FILES, list_files
from tests.report.examples import EXAMPLE, copy_example

CURE = "run simulations/examples/make.sh DATA after a change of what reports say, or of the config"


def test_example_is_what_the_code_writes(tmp_path):
    path = copy_example(tmp_path)
    for name in REPORT_FILES:
        (path / name).unlink()
    assert cli.main(["report", str(path)]) == 0, CURE
    changed = [n for n in REPORT_FILES if (path / n).read_bytes() != (EXAMPLE / n).read_bytes()]
    assert not changed, CURE


def test_example_verifies(tmp_path):
    checks = verify_run(EXAMPLE)
    assert not [check for check in checks if check.failed], CURE
    assert checks[-1].result == "ok"
    alone = shutil.copy(EXAMPLE / REPORT, tmp_path / "mailed.json")
    assert not [check for check in verify_report(alone) if check.failed]


def test_example_is_small_and_names_no_folder_of_whoever_made_it():
    files = [EXAMPLE / name for name in list_files(EXAMPLE)]
    assert sum(file.stat().st_size for file in files) < 400_000
    texts = [file.read_text() for file in files if file.suffix not in (".png", ".safetensors")]
    assert not [text for text in texts if "/home/" in text or "/tmp/" in text or "/work/" in text]


def test_schema_that_ships_is_that_of_the_code(capsys):
    assert cli.main(["report", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    shipped = EXAMPLE.parents[2] / "fedtrain" / "report" / "report.schema.json"
    assert printed == build_schema() == json.loads(shipped.read_text())


def test_example_satisfies_the_schema():
    """By another reader of schemas than the one that wrote it."""
    jsonschema = pytest.importorskip("jsonschema")
    tree = json.loads((EXAMPLE / REPORT).read_text())
    jsonschema.Draft202012Validator(build_schema()).validate(tree)
    tree["report"]["guarantees"][0]["unit"] = "hospital"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(build_schema()).validate(tree)


def test_example_has_a_guarantee_an_audit_and_a_model():
    report = read_report(EXAMPLE / REPORT).report
    assert report.verdict.level == "bounded"
    assert report.guarantees[0].epsilon == pytest.approx(4, abs=0.1)
    assert len(report.audit.findings) == 6
    assert report.utility.scores["test_auc"] > 0.8
