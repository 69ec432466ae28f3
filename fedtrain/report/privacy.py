"""The sentences on privacy that go with every result."""

from typing import Any, Final

from fedtrain.report.guarantees import UNITS
from fedtrain.report.run import Run, to_finite
from fedtrain.report.secure import get_mode
from fedtrain.report.tables import format_epsilon

NO_PRIVACY: Final = {
    "off": "No differential privacy: every site's update is released as it is.",
    "arithmetic": (
        "No differential privacy: every site's update is released as it is, encoded for the sum"
        " but not masked."
    ),
    "protocol": (
        "No differential privacy: no single update is released in plain, but their sums are, as"
        " they are and without noise. What sums, over all rounds together, tell of a record or a"
        " site is not limited."
    ),
}
RELATIONS: Final = {
    "add_remove": "adding or removing {}",
    "replace_one": "replacing {}",
}
SITE_RELATIONS: Final = {
    "add_remove": "replacing a site's update by zeros",
    "replace_one": "replacing a site's update by another",
}
UNCOVERED: Final = (
    "the metrics that sites report (loss, accuracy and the like come from unprotected data)"
)
SEVERAL_RECORDS: Final = "a person who has several records"
SEVERAL_SITES: Final = "a person with records at several sites, whose epsilons add up"
TAKING_PART: Final = "that a site takes part at all"
NO_KEYS: Final = (
    "The mode is arithmetic: the coordinator sees each site's vector with that site's share of the"
    " noise only, so that no site has a guarantee against it."
)


def describe_privacy(run: Run) -> str:
    """Say what the run guarantees so far, for which unit, and what it does not cover.

    Args:
        run: The run.

    Returns:
        Sentences. An epsilon is named only with its delta, unit, relation and accountant.
    """
    privacy = run.config.get("privacy", {})
    if asks_statistics(run):
        return _describe_question(run, str(privacy.get("neighbouring_relation", "unknown")))
    unit = str(privacy.get("unit", "none"))
    if unit == "none":
        return NO_PRIVACY[get_mode(run)]
    first = unit.partition("_")[0]
    if not run.metrics:
        return f"Differential privacy for {UNITS[first]}: no round is done, nothing is spent."
    parts = [_describe_first(run, privacy, first)]
    if unit.endswith("_site"):
        parts.append(_describe_second(run, privacy))
    if unit.endswith("site"):
        parts.append(_describe_sums(run))
    parts.append(_describe_rest(privacy, unit))
    return " ".join(part for part in parts if part)


def asks_statistics(run: Run) -> bool:
    """Say whether the run asks the sites for statistics, and trains nothing."""
    return "statistics" in run.config


def _describe_question(run: Run, relation: str) -> str:
    """Say what the one sum of statistics cost a record."""
    if not run.metrics:
        return "No sum of statistics is there, nothing is spent."
    epsilon, delta = run.get_last("epsilon"), run.get_last("delta")
    if epsilon is None or delta is None:
        return (
            "No differential privacy: the sum of statistics that the run asked for has no noise,"
            " and the coordinator has all of it. Nothing was trained."
        )
    return (
        f"Differential privacy for {UNITS['record']}: epsilon = {format_epsilon(epsilon)} at"
        f" delta = {delta:g} for the one sum of statistics that the run asked for (relation"
        f" {relation}, accountant {find_accountant(run)}). Nothing was trained."
    )


def find_accountant(run: Run) -> str:
    """Return the accountant that the run recorded, or `not recorded`."""
    last = run.metrics[-1] if run.metrics else {}
    return str(run.state.get("accountant") or last.get("accountant") or "not recorded")


def _describe_first(run: Run, privacy: dict[str, Any], unit: str) -> str:
    epsilon, delta = run.get_last("epsilon"), run.get_last("delta")
    table = privacy.get("site", {}) if unit == "site" else privacy
    if epsilon is None or delta is None or not _is_current(run):
        return (
            "No guarantee: the spent epsilon is not finite or not recorded"
            f" (noise_multiplier = {table.get('noise_multiplier', 'unknown')})."
        )
    relation = str(privacy.get("neighbouring_relation", "unknown"))
    if unit == "site":
        change = SITE_RELATIONS.get(relation, relation)
        shown = "the models can show"
    else:
        change = f"{RELATIONS.get(relation, relation + ' {}').format('one ' + unit)} at a site"
        shown = "the site's updates can show"
    return (
        f"Differential privacy for {UNITS[unit]}: epsilon = {format_epsilon(epsilon)} at"
        f" delta = {delta:g} for rounds 1 to {run.rounds_done}, the maximum over the sites"
        f" (relation {relation}, accountant {find_accountant(run)}). That is:"
        f" {change} changes the probability of whatever {shown} by at most a factor of"
        f" exp(epsilon), up to delta.{_describe_target(table)}"
    )


def _describe_second(run: Run, privacy: dict[str, Any]) -> str:
    epsilon, delta = run.get_last("site_epsilon"), run.get_last("site_delta")
    if epsilon is None or delta is None:
        return "No guarantee for a whole site: its epsilon is not finite."
    accountant = run.state.get("site_accountant") or "not recorded"
    return (
        f"And for {UNITS['site']}: epsilon = {format_epsilon(epsilon)} at delta = {delta:g}"
        f" (accountant {accountant}).{_describe_target(privacy.get('site', {}))}"
    )


def _describe_sums(run: Run) -> str:
    """Say against whom the site's guarantee holds."""
    if get_mode(run) == "arithmetic":
        return NO_KEYS
    corrupt = run.config.get("secure_aggregation", {}).get("corrupt_share", 0)
    held = (
        "The noise is in the sum that secure aggregation gives, enough of it by the fewest"
        f" survivors even if {corrupt:.0%} of a cohort side with the coordinator."
    )
    coordinator, delta = run.get_last("coordinator_epsilon"), run.get_last("coordinator_delta")
    if coordinator is None or delta is None:
        return held
    return (
        f"{held} The site's epsilon counts the sampling of sites, which holds against those who"
        " see the models and not who took part; against the coordinator, and sites of the same"
        f" cohorts, it is {format_epsilon(coordinator)} at delta = {delta:g}."
    )


def _describe_rest(privacy: dict[str, Any], unit: str) -> str:
    """Name what is not covered."""
    rest = ["the choice of settings"]
    if privacy.get("metrics") != "suppressed":
        rest.insert(0, UNCOVERED)
    if unit.startswith("record"):
        rest.append(SEVERAL_RECORDS)
    if unit.startswith("person"):
        rest.append(SEVERAL_SITES)
    if unit.endswith("site"):
        rest.append(TAKING_PART)
    *head, last = rest
    return f"Not covered: {', '.join(head)}{',' if len(head) > 1 else ''} and {last}."


def _is_current(run: Run) -> bool:
    return to_finite(run.metrics[-1].get("epsilon")) is not None


def _describe_target(table: dict[str, Any]) -> str:
    target = to_finite(table.get("target_epsilon"))
    return "" if target is None else f" The whole run was planned to cost at most {target:g}."
