"""The verdict: three sentences for whoever reads no further.

What is promised, what was checked, what is left. Nothing here calls data or a model harmless: a
bound is a bound, and an audit that finds nothing is no proof.
"""

from typing import Final

from fedtrain.report.document import (
    AuditPart,
    CheckRow,
    FindingPart,
    Guarantee,
    Level,
    Limits,
    Meaning,
    Utility,
    Verdict,
)
from fedtrain.report.figures import format_percent, format_rate
from fedtrain.report.statement import is_bounded
from fedtrain.report.tables import format_epsilon, label_metric

TITLES: Final[dict[Level, str]] = {
    "bounded": "What can be learned about one {unit} is bounded",
    "unbounded": "Nothing bounds what can be learned about one record",
    "contradicted": "The audit contradicts what is claimed",
    "unfinished": "The run is not finished; what follows is about the rounds so far",
}
# Ponomareva et al. 2023, section 5.2: tiers of epsilon for records or persons.
TIERS: Final = ((1.0, "strong"), (10.0, "reasonable"))
WEAK: Final = "weak"
PLURALS: Final = {"record": "records", "person": "persons", "site": "sites"}
NO_PROOF: Final = "that an attack fails is no proof of privacy"
BOUND_KEY: Final = "epsilon_lower_bound"
CLAIM_KEY: Final = "epsilon_claimed"


def build_verdict(
    *,
    status: str,
    guarantees: tuple[Guarantee, ...],
    meanings: tuple[Meaning, ...],
    audit: AuditPart,
    checks: tuple[CheckRow, ...],
    limits: Limits,
    utility: Utility,
    simulated: bool,
) -> Verdict:
    """Return heading and sentences."""
    level = choose_level(status, guarantees, audit)
    unit = guarantees[0].unit if guarantees else "record"
    return Verdict(
        level=level,
        title=TITLES[level].format(unit=unit),
        sentences=(
            _describe_promise(guarantees, meanings),
            _describe_checks(audit, checks, simulated=simulated),
            _describe_rest(limits, utility),
        ),
    )


def choose_level(status: str, guarantees: tuple[Guarantee, ...], audit: AuditPart) -> Level:
    """Return what the verdict comes to: a contradiction goes before everything."""
    if any(finding.verdict == "violated" for finding in audit.findings):
        return "contradicted"
    if not is_bounded(guarantees):
        return "unbounded"
    return "bounded" if status == "finished" else "unfinished"


def find_strongest(audit: AuditPart) -> FindingPart | None:
    """Return the finding with the highest lower bound of epsilon; None where none has one."""
    found = [one for one in audit.findings if get_bound(one) is not None]
    return max(found, key=lambda one: get_bound(one) or 0.0, default=None)


def get_bound(finding: FindingPart) -> float | None:
    """Return a finding's lower bound of epsilon, if it has one."""
    value = finding.figures.get(BOUND_KEY)
    return float(value) if isinstance(value, int | float) else None


def get_claim(finding: FindingPart) -> float | None:
    """Return the epsilon that is claimed of what a finding attacked, if it says so."""
    value = finding.figures.get(CLAIM_KEY)
    return float(value) if isinstance(value, int | float) else None


def describe_bound(finding: FindingPart) -> str:
    """Return a lower bound beside the claim for the same releases."""
    claim = get_claim(finding)
    of = "" if claim is None else f" where {claim:.2f} is claimed"
    return f"epsilon of at least {get_bound(finding) or 0.0:.2f}{of}"


def name_tier(epsilon: float) -> str:
    """Return the tier of an epsilon by Ponomareva et al. 2023."""
    return next((name for bound, name in TIERS if epsilon <= bound), WEAK)


def _describe_promise(guarantees: tuple[Guarantee, ...], meanings: tuple[Meaning, ...]) -> str:
    if not is_bounded(guarantees):
        return (
            "This run makes no promise: how much its updates and its model tell about a person in"
            " the data is not limited by anything that this report could check."
        )
    first, meaning = guarantees[0], meanings[0]
    attack = next(one for one in meaning.attacks if one.false_positive_rate == 0.01)
    epsilon = first.epsilon or 0.0
    return (
        "An attacker who sees all that left the sites, and may accuse"
        f" {format_rate(0.01)} of outsiders wrongly, recognises at most"
        f" {format_percent(attack.true_positive_rate)} of the {PLURALS[first.unit]} in the data:"
        f" epsilon is {format_epsilon(epsilon)} for {first.name}, by the usual marks of 1 and 10 a"
        f" {name_tier(epsilon)} guarantee."
    )


def _describe_checks(audit: AuditPart, checks: tuple[CheckRow, ...], *, simulated: bool) -> str:
    made = sum(check.count for check in checks)
    checked = f"{made:,} numbers, digests and signatures of the run were checked and hold"
    if simulated:
        checked += " (a simulation, whose keys anyone can make from its seed)"
    if not audit.findings:
        return f"{checked}; no attack was tried on this run: the software is taken at its word."
    violated = [one for one in audit.findings if one.verdict == "violated"]
    if violated:
        return f"{checked}, but the audit contradicts the claim: {violated[0].sentence}"
    strongest = find_strongest(audit)
    bound = ""
    if strongest is not None:
        bound = f"; the strongest shows {describe_bound(strongest)}"
    count = len(audit.findings)
    noun = "audit method was" if count == 1 else "audit methods were"
    return f"{checked}; {count} {noun} tried and none contradicts the claim{bound}, but {NO_PROOF}."


def _describe_rest(limits: Limits, utility: Utility) -> str:
    first = limits.not_protected[0].split(":")[0].rstrip(".")
    rest = (
        f"Not protected, among others: {first[:1].lower()}{first[1:]} (the whole list is under"
        " limits)"
    )
    score = next(((key, value) for key, value in utility.scores.items()), None)
    if score is None:
        return f"{rest}; how good the model is was not told by the sites."
    return f"{rest}; in return, the model's {label_metric(score[0])} is {score[1]:.3f}."
