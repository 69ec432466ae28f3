"""The thirteen fields of a guarantee's statement, each in a few plain sentences.

What a reader needs to know of any claim of differential privacy before believing it: setting, unit,
neighbours, what is covered, mechanism, accountant, numbers, tuning, data, secure aggregation,
audit, what is not covered, and who signed.
"""

from typing import Final

from fedtrain.config import Config
from fedtrain.report.document import Guarantee, StatementField
from fedtrain.report.figures import join_words
from fedtrain.report.tables import format_epsilon

NO_GUARANTEE: Final = "None: this run promises no differential privacy."
NAMES: Final = (
    "Setting",
    "Unit of privacy",
    "Neighbouring relation",
    "What is covered, and against whom",
    "Mechanism",
    "Accountant and what it assumes",
    "Numbers",
    "Tuning and other uses of the data",
    "Data and period",
    "Secure aggregation",
    "Audit",
    "What is not covered",
    "Signatures",
)
SECTIONS: Final = (
    "guarantee",
    "guarantee",
    "guarantee",
    "guarantee",
    "guarantee",
    "guarantee",
    "meaning",
    "limits",
    "data",
    "aggregation",
    "audit",
    "limits",
    "signatures",
)
SIMULATED: Final = (
    " This run is a simulation: its noise follows from the seed in the config, so that whoever"
    " knows the seed can take it off again."
)
RELATIONS: Final = {
    "add_remove": "adding or removing {unit}",
    "replace_one": "exchanging {unit} for another, which costs up to about twice as much",
}


def build_statement(
    config: Config,
    guarantees: tuple[Guarantee, ...],
    *,
    seeded: bool,
    software: dict[str, str],
    outside: dict[str, str],
) -> tuple[StatementField, ...]:
    """Return the thirteen fields.

    Args:
        config: The resolved config.
        guarantees: In order; none without differential privacy.
        seeded: Whether noise came from the seed of a simulation.
        software: Versions by package.
        outside: The fields that other parts of the report say: `data`, `aggregation`, `audit`,
            `limits`, `signatures`.
    """
    told = (
        _describe_setting(config, seeded=seeded),
        _describe_unit(config),
        _describe_relation(config),
        _describe_coverage(config, guarantees),
        _describe_mechanisms(guarantees, seeded=seeded),
        _describe_accountant(guarantees, software),
        describe_numbers(guarantees),
        _describe_tuning(config),
        outside["data"],
        outside["aggregation"],
        outside["audit"],
        outside["limits"],
        outside["signatures"],
    )
    return tuple(
        StatementField(number=number, name=name, text=text, section=section)
        for number, (name, text, section) in enumerate(
            zip(NAMES, told, SECTIONS, strict=True), start=1
        )
    )


def describe_numbers(guarantees: tuple[Guarantee, ...]) -> str:
    """Return every epsilon with its delta, unit and relation."""
    if not guarantees:
        return NO_GUARANTEE
    return " ".join(_describe_number(one) for one in guarantees)


def is_bounded(guarantees: tuple[Guarantee, ...]) -> bool:
    """Say whether there is a guarantee, and each epsilon of it is finite."""
    return bool(guarantees) and all(one.epsilon is not None for one in guarantees)


def _describe_number(one: Guarantee) -> str:
    if one.epsilon is None:
        return f"For {one.name}: no bound, epsilon is infinite."
    check = "" if one.check_epsilon is None else f"; by Rényi {format_epsilon(one.check_epsilon)}"
    return (
        f"For {one.name}: epsilon = {format_epsilon(one.epsilon)} at delta = {one.delta:g}"
        f" ({one.neighbouring_relation}, accountant {one.accountant}{check}), the largest over the"
        f" sites, against {one.against}."
    )


def _describe_setting(config: Config, *, seeded: bool) -> str:
    privacy, mode = config.privacy, config.secure_aggregation.mode
    if privacy.unit == "none":
        return NO_GUARANTEE
    parts = []
    if privacy.covers_records:
        parts.append(
            "Local: each site clips and adds noise before anything leaves it. A site is trusted"
            " with its own data and to run the software; nobody else is trusted with anything."
        )
    if privacy.covers_sites and mode == "protocol":
        parts.append(
            "Distributed: each site adds a share of the noise inside the secure sum. Trusted are"
            " the cryptography and enough honest sites in each sum"
            f" ({config.secure_aggregation.corrupt_share:.0%} of a cohort may side with the"
            " coordinator); the coordinator is not."
        )
    if privacy.covers_sites and mode == "arithmetic":
        parts.append(
            "Central: the coordinator sees each site's vector and is trusted with it; the mode"
            " 'arithmetic' has no keys."
        )
    return " ".join(parts) + (SIMULATED if seeded else "")


def _describe_unit(config: Config) -> str:
    unit = config.privacy.unit
    if unit == "none":
        return NO_GUARANTEE
    parts = []
    if unit.startswith("record"):
        parts.append(
            "One record: one row of a site's data. A person with several records at a site is"
            " protected less than is stated, about in proportion to their number."
        )
    if unit.startswith("person"):
        parts.append(
            "One person, with all their records at one site. The epsilons of a person known at"
            " several sites add up."
        )
    if unit.endswith("site"):
        parts.append("One site: its whole update in every round, and so all of its records.")
    return " ".join(parts)


def _describe_relation(config: Config) -> str:
    privacy = config.privacy
    if privacy.unit == "none":
        return NO_GUARANTEE
    relation, words = privacy.neighbouring_relation, []
    if privacy.covers_records:
        word = "person" if privacy.covers_persons else "record"
        words.append(RELATIONS[relation].format(unit=f"one {word}"))
    if privacy.covers_sites:
        by = "zeros" if relation == "add_remove" else "any other"
        words.append(f"{by} in place of a site's update (the list of sites is public)")
    return (
        f"'{relation}': {join_words(words)}. Sizes that the mechanism uses (sample rate, steps,"
        " divisor) are public constants of the config, never computed from data."
    )


def _describe_coverage(config: Config, guarantees: tuple[Guarantee, ...]) -> str:
    if not guarantees:
        return NO_GUARANTEE
    against = "; ".join(dict.fromkeys(one.against for one in guarantees))
    covered = (
        "Every update of every round, every model on the way and the final model: all that follows"
        f" from the noisy releases. Against {against}. The attacker may know everything else: the"
        " other records, the code, the config."
    )
    if config.privacy.metrics == "uncovered":
        return (
            f"{covered} Not the losses and accuracies that sites report: they are sent unprotected."
        )
    return f"{covered} Sites send no losses and no accuracies."


def _describe_mechanisms(guarantees: tuple[Guarantee, ...], *, seeded: bool) -> str:
    parts: list[str] = []
    for one in guarantees:
        m = one.mechanism
        if one.unit == "site" and parts and one.prefix == "coordinator_":
            continue
        if one.unit == "site":
            parts.append(
                f"Each site's update is clipped to L2 norm {m.clip:g}, rounded to integers; the"
                f" sum carries discrete Gaussian noise of {m.noise_multiplier:g} times the"
                f" sensitivity at least, in {m.steps:,} rounds; divided by the public constant"
                f" {m.divisor:g}."
            )
        else:
            parts.append(
                f"DP-SGD: the gradient of each {one.unit} is clipped to L2 norm {m.clip:g} (flat);"
                f" Gaussian noise of {m.noise_multiplier:g} times that is added to each sum, in"
                f" {m.steps:,} steps; Poisson sampling at rate {m.sample_rate:g}, really drawn so;"
                f" divided by the public constant {m.divisor:g}. Noise is drawn by Box-Muller in"
                " floating point."
            )
    if not parts:
        return NO_GUARANTEE
    source = "from the run's seed" if seeded else "from the site's operating system"
    parts.append(f"Noise and samples come from an AES-CTR stream, keyed {source}.")
    return " ".join(parts)


def _describe_accountant(guarantees: tuple[Guarantee, ...], software: dict[str, str]) -> str:
    if not guarantees:
        return NO_GUARANTEE
    names = {
        "pld": "privacy loss distribution (dp-accounting"
        f" {software.get('dp-accounting', 'of unknown version')}, rounded up to a grid)",
        "rdp": "Rényi divergences (fedtrain's own, an upper bound)",
    }
    used = join_words([names[name] for name in dict.fromkeys(one.accountant for one in guarantees)])
    return (
        f"{used[:1].upper()}{used[1:]}, all steps of all rounds composed; checked by Rényi"
        " divergences, which share no code with it. It assumes that noise and sampling were as"
        " stated: tests of the software enforce both, the audit measures them. Nothing is claimed"
        " from secure aggregation or from drawing sites unless a row of the numbers says so."
    )


def _describe_tuning(config: Config) -> str:
    parts = [
        (
            "The ledger counts this run alone. Runs that were tried before it, to choose its"
            " settings, are runs of their own in each site's lifetime ledger, where it keeps one."
        )
    ]
    if config.data.preparation == "standardise":
        parts.append("Means and variances of columns were computed from the data, unprotected.")
    elif config.privacy.unit != "none":
        parts.append("Nothing about the preparation of the data was asked of a site.")
    return " ".join(parts)
