"""The command `fedtrain audit`, as a user types it, and the audit as a stage of a run."""

import json
from dataclasses import replace

import pytest
import torch

from fedtrain import cli
from fedtrain.audit.black_box import make_canaries
from fedtrain.audit.commands import raise_alarm
from fedtrain.audit.findings import Finding, load_findings
from fedtrain.audit.stage import open_context
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards
from fedtrain.errors import AuditError, DataError
from fedtrain.seal import check_files, read_manifest

torch.set_num_threads(1)
QUICK = ("--quick", "--json")


def audit(path, *options):
    return cli.main(["audit", str(path), *options])


def test_audit_keeps_what_every_method_finds(copy_run, capsys):
    path, names = copy_run(), ["conformance", "sentinels", "black-box", "masking"]
    options = [part for name in names for part in ("--method", name)]
    assert audit(path, *options, *QUICK) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]
    assert [finding["method"] for finding in printed] == names
    saved = {finding.method: finding.verdict for finding in load_findings(path)}
    assert saved == dict.fromkeys(names, "holds")


def test_sentinels_say_what_they_rest_on(copy_run, capsys):
    path = copy_run()
    assert audit(path, "--method", "sentinels", "--quick") == 0
    (finding,) = load_findings(path)
    figures = finding.figures
    assert figures["epsilon_lower_bound"] <= figures["epsilon_claimed"] == pytest.approx(8, rel=0.1)
    assert (figures["delta"], figures["canaries"], figures["steps"]) == (1e-5, 1000, 8)
    assert "no proof of privacy" in finding.sentence
    assert "sees the noisy gradient of every step" in " ".join(capsys.readouterr().out.split())


def test_audit_is_repeated_to_the_bit(copy_run):
    path = copy_run()
    texts = []
    for _ in range(2):
        assert audit(path, "--method", "sentinels", *QUICK) == 0
        texts.append((path / "audit" / "sentinels.json").read_text())
    assert texts[0] == texts[1]


def test_findings_are_sealed_with_the_run(copy_run):
    path = copy_run()
    assert audit(path, "--method", "masking", *QUICK) == 0
    assert "audit/masking.json" in read_manifest(path)
    check_files(path, read_manifest(path))


@pytest.mark.parametrize("plant", ["noise/2", "noise/4", "no-clip", "no-mask", "reused-noise"])
def test_planted_fault_is_found(copy_run, plant, capsys):
    path = copy_run()
    assert audit(path, "--plant", plant, *QUICK) == 0
    finding = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert finding["verdict"] == "holds"
    assert "Found in 1 of 1 audits" in finding["sentence"]
    assert (path / "audit" / f"self-test-{plant.replace('/', '-')}.json").exists()


def test_planted_fault_that_is_missed_is_an_alarm(copy_run, capsys):
    assert audit(copy_run(), "--plant", "no-clip", "--method", "masking", "--quick") == 8
    output = capsys.readouterr()
    assert "found in 0 of 1 audits by masking" in output.err
    assert "0 of 1" in output.out


def test_repeats_print_false_alarms_and_power(copy_run, capsys):
    options = ("--plant", "noise/4", "--method", "sentinels", "--repeats", "3", "--json")
    assert audit(copy_run(), *options, "--quick") == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert (figures["power_sentinels"], figures["false_alarm_rate_sentinels"]) == (1.0, 0.0)
    assert 0.2 < figures["power_sentinels_low"] < 0.4
    assert figures["repeats"] == 3


def test_run_whose_config_was_changed_is_refused(copy_run, capsys):
    path = copy_run()
    text = (path / "config.toml").read_text()
    noise = next(line for line in text.splitlines() if line.startswith("noise_multiplier"))
    (path / "config.toml").write_text(text.replace(noise, "noise_multiplier = 0.2"))
    assert audit(path, "--method", "masking", "--quick") == 8
    assert "digest" in capsys.readouterr().err


def test_contradicted_claim_is_an_auditors_error():
    finding = make_finding()
    assert raise_alarm([finding]) == 0
    with pytest.raises(AuditError, match="sentinels: the run does not keep what it claims"):
        raise_alarm([finding, replace(finding, verdict="violated")])


def make_finding():
    return Finding("sentinels", "t", "m", "record", 1, 0.95, 0, {}, "holds", "s")


def test_run_without_protection_has_nothing_to_contradict(copy_run, capsys):
    path = copy_run("plain")
    assert audit(path, "--method", "sentinels", "--method", "conformance", "--quick") == 0
    assert "Nothing of what these methods look at" in capsys.readouterr().out
    assert audit(path, "--method", "black-box", "--quick") == 0
    (finding,) = load_findings(path)
    assert (finding.verdict, finding.figures["epsilon_claimed"]) == ("informative", None)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--method", "sentinel"), 2, "choose conformance, sentinels"),
        (("--plant", "noise/3"), 2, "choose noise/2"),
        (("--repeats", "0"), 2, "is below 1"),
        (("--inverted-records", "3"), 2, "is below 4"),
        (("--label-records", "0"), 2, "is below 1"),
        (("--set", "run.seed=3"), 2, "changes what the run computed"),
    ],
)
def test_wrong_use_is_refused(simulated, options, code, said, capsys):
    assert audit(simulated("protocol"), *options) == code
    assert said in capsys.readouterr().err


def test_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert audit(tmp_path) == 3
    assert "is no run directory" in capsys.readouterr().err


def test_list_names_methods_without_a_run(capsys):
    assert cli.main(["audit", "--list"]) == 0
    assert "sentinels" in capsys.readouterr().out


def test_audit_is_a_stage_of_a_run(tmp_path, capsys):
    small = ("partition.sites=4", "federation.rounds=1", 'audit.methods=["masking"]')
    options = [part for pair in small for part in ("--set", pair)]
    out = tmp_path / "run"
    assert cli.main(["simulate", "digits", "--out", str(out), *options]) == 0
    assert "Claims: 1 holds." in capsys.readouterr().out
    assert [finding.method for finding in load_findings(out)] == ["masking"]
    assert "audit/masking.json" in read_manifest(out)


def test_method_that_does_not_exist_is_refused_before_a_run(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--set", 'audit.methods=["maskin"]', "--out", str(out)]
    assert cli.main(["simulate", "digits", *options]) == 2
    assert "audit method 'maskin' is unknown" in capsys.readouterr().err
    assert not out.exists()


def test_canaries_have_wrong_labels_and_come_from_other_sites(simulated):
    config = open_context(simulated("protocol")).config
    shards = Shards.open(config)
    saved = json.loads((simulated("protocol") / "model.json").read_text())
    preparation = Preparation.from_json(saved["preparation"])
    canaries = make_canaries(shards, preparation, classes=10, limit=50, seed=0)
    real = shards.load(1, preparation).train
    assert len(canaries) == 50
    assert (canaries.features == real.features[:50]).all()
    assert not (canaries.labels == real.labels[:50]).any()
    with pytest.raises(DataError, match="at least 20 as canaries"):
        make_canaries(shards, preparation, classes=10, limit=10, seed=0)
