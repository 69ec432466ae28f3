"""The sentence on privacy that goes with every result."""

from typing import Any, Final

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
NOT_COVERED: Final = (
    "Not covered: the metrics that sites report (loss, accuracy and the like come from unprotected"
    " data), the choice of settings, and a person who has several records."
)
RELATIONS: Final = {
    "add_remove": "adding or removing one record",
    "replace_one": "replacing one record",
}


def describe_privacy(run: Run) -> str:
    """Say what the run guarantees so far, for which unit, and what it does not cover.

    Args:
        run: The run.

    Returns:
        Sentences. An epsilon is named only with its delta, unit, relation and accountant.
    """
    privacy = run.config.get("privacy", {})
    if privacy.get("unit", "none") == "none":
        return NO_PRIVACY[get_mode(run)]
    epsilon, delta = run.get_last("epsilon"), run.get_last("delta")
    if not run.metrics:
        return "Differential privacy for one record of a site: no round is done, nothing is spent."
    if epsilon is None or delta is None or not _is_current(run):
        return (
            "No guarantee: the spent epsilon is not finite or not recorded"
            f" (noise_multiplier = {privacy.get('noise_multiplier', 'unknown')})."
        )
    relation = str(privacy.get("neighbouring_relation", "unknown"))
    return (
        f"Differential privacy for one record of a site: epsilon = {format_epsilon(epsilon)} at"
        f" delta = {delta:g} for rounds 1 to {run.rounds_done}, the maximum over the sites"
        f" (relation {relation}, accountant {find_accountant(run)}). That is:"
        f" {RELATIONS.get(relation, relation)} at a site changes the probability of whatever the"
        " site's updates can show by at most a factor of exp(epsilon), up to delta."
        f"{_describe_target(privacy)} {NOT_COVERED}"
    )


def find_accountant(run: Run) -> str:
    """Return the accountant that the run recorded, or `not recorded`."""
    last = run.metrics[-1] if run.metrics else {}
    return str(run.state.get("accountant") or last.get("accountant") or "not recorded")


def _is_current(run: Run) -> bool:
    return to_finite(run.metrics[-1].get("epsilon")) is not None


def _describe_target(privacy: dict[str, Any]) -> str:
    target = to_finite(privacy.get("target_epsilon"))
    return "" if target is None else f" The whole run was planned to cost at most {target:g}."
