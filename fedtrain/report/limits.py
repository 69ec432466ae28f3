"""What a run does not protect, what stays at risk, and what answers the known hazards.

The hazards follow the layers of NIST SP 800-226 (2025): the privacy parameters on top, then
algorithms and their utility, then what all of it stands on. Names of layers are ours where the
publication's are longer.
"""

from typing import Final

from fedtrain.config import Config
from fedtrain.report.document import Guarantee, Hazard, Limits
from fedtrain.report.statement import is_bounded

TOP: Final = "Privacy parameters"
MIDDLE: Final = "Algorithms, correctness, utility"
BASE: Final = "Trust, security, collection"

METRICS: Final = (
    "The losses and accuracies that sites report: they are computed on records and sent without"
    " noise."
)
MANY_RECORDS: Final = "A person with several records: the unit is one record."
MANY_SITES: Final = "A person with records at several sites: the epsilons there add up."
TAKING_PART: Final = "That a site takes part, and in which rounds."
GROUPS: Final = (
    "Facts about a site's records as a whole (how ill its patients are on average): differential"
    " privacy for single units hides a unit, not a hospital."
)
POPULATION: Final = (
    "What the model teaches about people in general: a smoker's risk can be inferred from a model"
    " that never saw that smoker."
)
SETTINGS: Final = (
    "The choice of settings by looking at results of earlier runs, except as they paid."
)
START: Final = (
    "Records that the start model was trained on (model.start_from): the bound is for the records"
    " of this run."
)
IMPORTANCE: Final = (
    "Records that the start model's importances were computed from (continual.importance = 'file'):"
    " they steer this run without noise."
)
COUNTED: Final = (
    "training.class_weights and data.vocabulary, where they were counted from these records: the"
    " bound takes the config for public, and what a count cost comes on top."
)
FAMILY: Final = (
    "The same records in the other folds or trials that this run is one of: the bound is of this"
    " run alone, and theirs come on top (fedtrain cross-validate and sweep say what all cost)."
)
UPDATES: Final = (
    "Each site's update, which is released as it is: training records can be reconstructed from it."
)
SUMS: Final = "The sums of updates, over all rounds together: nothing limits what they tell."

RESIDUAL: Final = (
    (
        "The bound holds for the software that ran as it was; a site that runs other software, or"
        " whose machine is compromised, protects nothing."
    ),
    (
        "Time, size and number of messages can be seen on the network; sizes and steps are public"
        " constants, so that they tell who took part and when, and not what a record holds."
    ),
    (
        "The trained model is personal data's descendant: whether it is personal data itself is for"
        " a case-by-case assessment (EDPB Opinion 28/2024), for which this report is evidence."
    ),
    (
        "Noise is drawn in floating point where the mechanism is DP-SGD; the difference to real"
        " numbers is not in the bound."
    ),
)
UNPROTECTED_RISK: Final = (
    "Membership inference and reconstruction from models and updates are practical attacks; this"
    " run has no bound on either."
)


def build_limits(
    config: Config, guarantees: tuple[Guarantee, ...], *, audited: bool, lasting: bool
) -> Limits:
    """Return limits, risks and hazards of a run.

    Args:
        config: The resolved config.
        guarantees: Those of the run.
        audited: Whether there are findings.
        lasting: Whether a site signed its lifetime budget.
    """
    bounded = is_bounded(guarantees)
    risks = RESIDUAL if bounded else (UNPROTECTED_RISK, *RESIDUAL[:3])
    return Limits(
        not_protected=_list_unprotected(config),
        residual_risks=risks,
        hazards=_list_hazards(config, bounded=bounded, audited=audited, lasting=lasting),
    )


def _list_unprotected(config: Config) -> tuple[str, ...]:
    privacy, mode = config.privacy, config.secure_aggregation.mode
    if privacy.unit == "none":
        return (SUMS if mode == "protocol" else UPDATES, METRICS, GROUPS, POPULATION)
    found = [METRICS] if privacy.metrics != "suppressed" else []
    if privacy.unit.startswith("record"):
        found.append(MANY_RECORDS)
    if privacy.covers_records:
        found.append(MANY_SITES)
    if not privacy.covers_sites:
        found.append(GROUPS)
    if config.model.start_digest is not None:
        found.append(START)
    if config.continual is not None and config.continual.importance == "file":
        found.append(IMPORTANCE)
    if config.training.class_weights is not None or config.data.vocabulary is not None:
        found.append(COUNTED)
    if (config.data.fold, config.partition.leave_out, config.run.trial) != (None, None, None):
        found.append(FAMILY)
    return (*found, TAKING_PART, POPULATION, SETTINGS)


def _list_hazards(
    config: Config, *, bounded: bool, audited: bool, lasting: bool
) -> tuple[Hazard, ...]:
    privacy = config.privacy
    unit = (
        "Yes, if a person has several records: choose privacy.unit = 'person'."
        if privacy.unit.startswith("record")
        else "No unit is protected."
        if privacy.unit == "none"
        else "No: the unit is a person at a site, or a whole site."
    )
    rows = (
        (TOP, "The unit is smaller than a person", unit, "guarantee"),
        (TOP, "Epsilon is large, or hidden", _describe_epsilon(bounded=bounded), "meaning"),
        (
            TOP,
            "A budget without a period, reset from run to run",
            _describe_life(lasting),
            "spending",
        ),
        (
            MIDDLE,
            "Parameters computed from the data",
            "No: sample rate, steps, divisor, clip and noise are constants of the config."
            if privacy.unit != "none"
            else "Does not arise: there is no mechanism.",
            "guarantee",
        ),
        (
            MIDDLE,
            "Batches are shuffled, but accounted as Poisson",
            "No: a step samples each record independently; the software refuses anything else.",
            "guarantee",
        ),
        (
            MIDDLE,
            "The implementation adds too little noise",
            "Measured by the audit." if audited else "Not measured in this run: no audit was made.",
            "audit",
        ),
        (
            MIDDLE,
            "Noise hits small groups hardest",
            "Shown by site, where metrics exist.",
            "utility",
        ),
        (
            BASE,
            "Leaks beside the mechanism: metrics, sizes, counts",
            "Metrics are sent unprotected."
            if privacy.metrics != "suppressed"
            else "Metrics are suppressed; weights are equal, so that no count is sent.",
            "limits",
        ),
        (
            BASE,
            "The coordinator sees single updates",
            {
                "protocol": "No: it sees masked vectors and their sum.",
                "arithmetic": "Yes: this mode has no keys.",
                "off": "Yes: secure aggregation is off.",
            }[config.secure_aggregation.mode],
            "aggregation",
        ),
        (
            BASE,
            "Noise from a generator that can be predicted",
            "Noise and samples come from AES-CTR; a simulation keys it from its seed.",
            "guarantee",
        ),
        (
            BASE,
            "Records are exposed where they are collected",
            (
                "Not the software's to answer: records stay where they are, under the site's own"
                " controls."
            ),
            "limits",
        ),
    )
    return tuple(
        Hazard(layer=layer, name=name, answer=answer, section=section)
        for layer, name, answer, section in rows
    )


def _describe_epsilon(*, bounded: bool) -> str:
    if bounded:
        return "Stated with delta, unit and relation, and as what the best attacker gains."
    return "There is no finite epsilon; the report says so first."


def _describe_life(lasting: bool) -> str:
    if lasting:
        return "Sites that keep a ledger signed where their lifetime budget stands."
    return "Not answered here: no site signed where its lifetime budget stands."
