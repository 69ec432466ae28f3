"""A report, built from a run directory: from its ledger, transcript, config and findings alone.

Built twice from the same files it is the same report, on any machine: figures are rounded to six
significant digits, and nothing of the moment or of the machine is in it.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fedtrain.audit.checks import HOLDS, Check, verify_evidence
from fedtrain.audit.evidence import LINE_FILES, Evidence
from fedtrain.audit.findings import FOLDER as AUDIT_FOLDER
from fedtrain.audit.findings import Finding, load_findings
from fedtrain.config import LOCAL_KEYS, Config, build_config, to_toml, to_tree
from fedtrain.errors import AuditError, ConfigError
from fedtrain.report.bounds import build_guarantee, build_meaning, count_joined, list_spent
from fedtrain.report.document import (
    FORMAT,
    AuditPart,
    CheckRow,
    ConfigPart,
    FindingPart,
    Guarantee,
    Limits,
    Report,
    RunFacts,
    SecureSums,
    Signed,
    Verdict,
)
from fedtrain.report.figures import join_words
from fedtrain.report.limits import build_limits
from fedtrain.report.outcome import (
    build_data_sheet,
    build_utility,
    describe_data,
    read_architecture,
)
from fedtrain.report.signing import Attestation, is_simulated, load_attestations
from fedtrain.report.spending import build_spending
from fedtrain.report.standards import build_standards
from fedtrain.report.statement import build_statement
from fedtrain.report.sums import build_sums
from fedtrain.report.verdict import build_verdict, describe_bound, find_strongest
from fedtrain.seal import is_added, list_files

NO_AUDIT: Final = (
    "No audit was made of this run. The guarantee is a theorem about the mechanism; that the"
    " software runs this mechanism is taken from its tests."
)
BELOW: Final = (
    "A theorem bounds the leak from above, an attack shows a leak from below; the truth lies"
    " between. A low lower bound is no proof of privacy: a better attack may show more."
)


def build_report(evidence: Evidence, checks: Sequence[Check] | None = None) -> Report:
    """Build the report of a run directory.

    Args:
        evidence: The directory, with the roster to check against.
        checks: What `verify_evidence` gave, where that was asked already.

    Raises:
        AuditError: Something in the directory does not hold; a report is not made of it.
        ConfigError: The run trained nothing.
    """
    rows = _list_checks(verify_evidence(evidence) if checks is None else checks)
    if evidence.config.statistics is not None:
        raise ConfigError(
            f"{evidence.path} asked for statistics and trained nothing; a report is of a model:"
            " fedtrain stats prints this run's result, fedtrain verify checks it"
        )
    config, state = evidence.config, evidence.state
    spent = list_spent(config, joined=count_joined(evidence.ledger), done=state.round)
    guarantees = tuple(build_guarantee(config, one) for one in spent)
    attestations = load_attestations(evidence)
    lifetimes = {
        one.statement.site: one.statement.lifetime
        for one in attestations
        if one.statement.lifetime is not None
    }
    sums = build_sums(evidence)
    return compose(
        Report(
            format=FORMAT,
            run=_describe_run(evidence),
            verdict=Verdict(level="unfinished", title="", sentences=("", "", "")),
            statement=(),
            guarantees=guarantees,
            meanings=tuple(one for one in map(build_meaning, spent) if one is not None),
            spending=build_spending(evidence, lifetimes),
            secure_aggregation=sums,
            audit=_build_audit(load_findings(evidence.path)),
            utility=build_utility(evidence),
            data_sheet=build_data_sheet(evidence),
            config=ConfigPart(digest=state.digest, toml=to_toml(strip_local(config))),
            limits=Limits(not_protected=(), residual_risks=(), hazards=()),
            signed=_list_signed(evidence, attestations, sums),
            checks=rows,
            standards=(),
            evidence=_list_evidence(evidence.path),
        ),
        config,
    )


def strip_local(config: Config) -> Config:
    """Return a config without the keys that are not in its digest, such as where data lies."""
    tree = to_tree(config)
    for *tables, key in LOCAL_KEYS:
        table = tree
        for name in tables:
            table = table[name]
        table.pop(key, None)
    return build_config(tree)


def compose(report: Report, config: Config) -> Report:
    """Return a report with the parts that follow from its others: verdict, statement, limits."""
    run, guarantees, audit = report.run, report.guarantees, report.audit
    lasting = any(site.lifetime is not None for site in report.spending.sites)
    limits = build_limits(config, guarantees, audited=bool(audit.findings), lasting=lasting)
    verdict = build_verdict(
        status=run.status,
        guarantees=guarantees,
        meanings=report.meanings,
        audit=audit,
        checks=report.checks,
        limits=limits,
        utility=report.utility,
        simulated=run.simulated,
    )
    statement = build_statement(
        config,
        guarantees,
        seeded=run.seeded,
        software=run.software,
        outside={
            "data": describe_data(report.data_sheet),
            "aggregation": _describe_sums(report.secure_aggregation),
            "audit": _describe_audit(audit, guarantees),
            "limits": " ".join(limits.not_protected),
            "signatures": _describe_signed(report.signed),
        },
    )
    composed = {
        "limits": limits,
        "verdict": verdict,
        "statement": statement,
        "standards": build_standards(),
    }
    return report.model_copy(update=composed)


def _list_checks(checks: Sequence[Check]) -> tuple[CheckRow, ...]:
    """Return the checks that `fedtrain verify` makes too; no report is made where one fails."""
    for check in checks:
        if check.failed:
            raise AuditError(f"{check.name}: {check.result}; no report is made of such a run")
    return tuple(
        CheckRow(name=check.name, count=check.count, result=check.result) for check in checks
    )


def _describe_run(evidence: Evidence) -> RunFacts:
    config, state = evidence.config, evidence.state
    versions = evidence.read_json("environment.json").get("versions")
    software = {str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {}
    return RunFacts(
        name=config.run.name,
        run_id=state.run_id,
        config_digest=state.digest,
        status=state.status,
        started=state.started,
        rounds_done=state.round,
        rounds_planned=state.rounds,
        sites=state.sites,
        model=read_architecture(evidence),
        simulated=is_simulated(evidence),
        seeded=is_simulated(evidence) and config.simulation.sites_directory is None,
        software=software,
    )


def _build_audit(findings: list[Finding]) -> AuditPart:
    parts = tuple(
        FindingPart.model_validate(vars(one) | {"figures": dict(one.figures)}) for one in findings
    )
    return AuditPart(findings=parts, sentences=(BELOW,) if parts else (NO_AUDIT,))


def _list_signed(
    evidence: Evidence, attestations: list[Attestation], sums: SecureSums
) -> tuple[Signed, ...]:
    made = " (simulated)" if is_simulated(evidence) else ""
    found = []
    if evidence.mode != "off":
        root = evidence.roster.root_public_key.hex()
        found.append(
            Signed(
                who=f"federation's root{made}", what="the roster", key=root, result=HOLDS, own=False
            )
        )
    if sums.signatures:
        what = f"{sums.signatures:,} keys, vectors and survivor sets of secure sums"
        found.append(
            Signed(
                who=f"sites{made}", what=what, key="those of the roster", result=HOLDS, own=False
            )
        )
    for one in attestations:
        said = one.statement
        lifetime = " and its lifetime budget" if said.lifetime is not None else ""
        what = f"its {said.lines} lines of the run's ledger{lifetime}"
        own = "" if said.lifetime is not None else made
        found.append(
            Signed(who=f"{said.site}{own}", what=what, key=one.key, result=HOLDS, own=True)
        )
    return tuple(found)


def _list_evidence(path: Path) -> dict[str, str]:
    """Return the digests of the files that the report follows from."""
    names = ["config.toml", "state.json", *LINE_FILES, "sites.json", "roster.json"]
    names += ["environment.json", "model.json", "model.safetensors"]
    names += [name for name in list_files(path) if name.startswith("sites/")]
    names += [
        name
        for name in list_files(path)
        if is_added(name) and (name.startswith((f"{AUDIT_FOLDER}/", "signatures/")))
    ]
    return {
        name: hashlib.sha256((path / name).read_bytes()).hexdigest()
        for name in names
        if (path / name).is_file()
    }


def _describe_sums(sums: SecureSums) -> str:
    training = [one for one in sums.rounds if one.purpose == "train"]
    cohorts = sorted({one.cohort for one in training})
    sizes = (
        f"{cohorts[0]}"
        if len(cohorts) == 1
        else f"{cohorts[0]} to {cohorts[-1]}"
        if cohorts
        else "0"
    )
    thresholds = sorted({one.threshold for one in training if one.threshold is not None})
    least = f", at least {thresholds[0]} survivors for a sum" if thresholds else ""
    dropped = sum(one.cohort - one.survivors for one in training if one.void is None)
    return (
        f"Mode '{sums.mode}'. {len(training)} rounds of {sizes} sites{least}; {dropped} sites"
        f" dropped out of a round, {sums.void_rounds} rounds were void. {sums.sentences[0]}"
    )


def _describe_audit(audit: AuditPart, guarantees: tuple[Guarantee, ...]) -> str:
    if not audit.findings:
        return NO_AUDIT
    titles = join_words([f"{one.title} ({one.verdict})" for one in audit.findings])
    strongest = find_strongest(audit)
    if strongest is None or not guarantees or guarantees[0].epsilon is None:
        return f"{titles}. {BELOW}"
    return f"{titles}. The strongest shows {describe_bound(strongest)}. {BELOW}"


def _describe_signed(signed: tuple[Signed, ...]) -> str:
    if not signed:
        return "Nothing of this run is signed by anybody but this report."
    general = [f"{one.who}: {one.what}" for one in signed if not one.own]
    own = [one for one in signed if one.own]
    if own:
        general.append(f"{len(own)} sites, each for itself: {own[0].what}")
    return f"{'; '.join(general)}; the coordinator: this report, where it has a key."
