"""What a run's coordinator could see of one site, and which of its rounds are void."""

from typing import Any, Final

from fedtrain.report.run import Run
from fedtrain.report.tables import format_count

VOIDS_LIMIT: Final = 10
OFF: Final = "off: the coordinator sees every site's update"
ARITHMETIC: Final = "arithmetic: the same sum without keys: hides nothing"
PROTOCOL: Final = "protocol: the coordinator learned the sum over the survivors or nothing"
SIMULATED: Final = "identities are made from the run's seed, so they are secret to nobody"


def get_mode(run: Run) -> str:
    """Return the mode of secure aggregation; a run from before there was any has it off."""
    return str(run.config.get("secure_aggregation", {}).get("mode", "off"))


def describe_aggregation(run: Run) -> str:
    """Say in one line what the coordinator could see of one site."""
    mode = get_mode(run)
    if mode == "off":
        return OFF
    sizes = _describe_sizes(run)
    if mode == "arithmetic":
        return ARITHMETIC + sizes
    return PROTOCOL + sizes + (f"; {SIMULATED}" if run.roster.get("simulated") else "")


def find_voids(run: Run) -> dict[int, str]:
    """Return why each void round is void, by round.

    A round is void where no secure sum came about, no usable update was left, or fewer than
    `federation.min_survivors`; it leaves the model as it was.
    """
    least = int(run.config.get("federation", {}).get("min_survivors", 1))
    voids: dict[int, str] = {}
    for line in run.metrics:
        reason = _find_reason(line, least)
        if reason is not None:
            voids[int(line["round"])] = reason
    return voids


def describe_voids(run: Run, limit: int | None = VOIDS_LIMIT) -> str:
    """Return a footnote on the void rounds, of so many of them; nothing where none is void."""
    voids = find_voids(run)
    if not voids:
        return ""
    shown = list(voids.items())[:limit]
    lines = [f"! {format_count(len(voids), 'void round')}; the model stayed as it was:"]
    lines += [f"  {number}: {reason}" for number, reason in shown]
    if len(shown) < len(voids):
        lines.append(f"  and {len(voids) - len(shown)} more (--all shows them)")
    return "\n".join(lines)


def build_aggregation(run: Run) -> dict[str, Any]:
    """Return what `describe_aggregation` and `find_voids` say, as JSON types."""
    return {
        "mode": get_mode(run),
        "statement": describe_aggregation(run),
        "simulated_identities": bool(run.roster.get("simulated")),
        "void_rounds": [
            {"round": number, "reason": reason} for number, reason in find_voids(run).items()
        ],
    }


def _find_reason(line: dict[str, Any], least: int) -> str | None:
    survivors = line.get("survivors")
    if line.get("void") is not None:
        return str(line["void"])
    if line.get("cohort") == 0:
        return "no site was drawn"
    if survivors == 0:
        return "no usable update"
    if survivors is not None and survivors < least:
        return f"{survivors} survivors are below federation.min_survivors = {least}"
    return None


def _describe_sizes(run: Run) -> str:
    """Return cohort and threshold of the rounds so far, or nothing before the first."""
    lines = [line for line in run.metrics if line.get("threshold") is not None]
    if not lines:
        return ""
    cohort, threshold = (_format_range(lines, key) for key in ("cohort", "threshold"))
    return f" (cohort of {cohort}, threshold {threshold})"


def _format_range(lines: list[dict[str, Any]], key: str) -> str:
    values = [line[key] for line in lines if line.get(key) is not None]
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
