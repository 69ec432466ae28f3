"""Sections of the page on the guarantee: its statement, its meaning, what it cost each site."""

from typing import Final

from fedtrain.report import elements as e
from fedtrain.report.document import Guarantee, Meaning, Report, SiteSpending
from fedtrain.report.figures import format_odds, format_percent, format_rate
from fedtrain.report.pictures import Bar, draw_bars, draw_beliefs, draw_trade_off
from fedtrain.report.statement import NO_GUARANTEE
from fedtrain.report.tables import NOTHING, format_epsilon

MOST_SITES: Final = 60
MOST_BARS: Final = 20
WORDS: Final = (
    (
        "",
        "Epsilon",
        (
            "How much the releases can change what anyone believes about one unit: odds"
            " change by at most a factor of exp(epsilon). Smaller is better; 0 is nothing at all."
        ),
    ),
    (
        "",
        "Delta",
        "The chance that this fails. It should be far below one over the number of records.",
    ),
    (
        "",
        "mu",
        (
            "The same on one scale: telling whether a unit was in the data is no easier than"
            " telling two bell curves apart whose middles are mu standard deviations from each"
            " other."
        ),
    ),
    ("", "Clip", "The most that one unit can contribute to a sum; what is above is cut off."),
    ("", "Noise multiplier", "The noise's standard deviation over the clip."),
)
NO_MEANING: Final = (
    "There is nothing to translate: without a finite epsilon, the best attack may find everyone."
)


def write_guarantee(report: Report) -> list[str]:
    """Return the thirteen fields, the numbers and the words they are in."""
    rows = [(f"{one.number}", one.name, one.text) for one in report.statement]
    parts = [e.fact_table(rows, caption="The statement, in thirteen fields")]
    if not report.guarantees:
        return parts
    named = [
        f"{one.name}, against {one.against}" if one.prefix else one.name
        for one in report.guarantees
    ]
    columns = [_list_numbers(one) for one in report.guarantees]
    numbers = e.table(
        ("Figure", *(name[:1].upper() + name[1:] for name in named)),
        [(name, *(column[name] for column in columns)) for name in columns[0]],
        caption="The guarantee in numbers; each epsilon is rounded up",
        figures=range(1, len(columns) + 1),
    )
    words = e.fact_table(WORDS, caption="What the words mean")
    return [*parts, numbers, words]


def write_meaning(report: Report) -> list[str]:
    """Return each guarantee as attacks, beliefs and mu."""
    if not report.meanings:
        return [e.paragraph(NO_MEANING if report.guarantees else NO_GUARANTEE)]
    named = {one.prefix: one for one in report.guarantees}
    several = len(report.meanings) > 1
    parts: list[str] = []
    for meaning in report.meanings:
        guarantee = named[meaning.prefix]
        if several:
            parts.append(e.heading(f"For {guarantee.name}, against {guarantee.against}"))
        parts += _write_one_meaning(meaning, guarantee)
    return parts


def write_spending(report: Report) -> list[str]:
    """Return what each site spent in this run, and for life where it signed that."""
    sites = report.spending.sites
    parts = [e.paragraph(text) for text in report.spending.sentences]
    shown = sites[:MOST_SITES]
    more = f"; {len(shown)} of {len(sites)} shown" if len(shown) < len(sites) else ""
    lasting = [one for one in shown if one.lifetime is not None]
    headers: tuple[str, ...] = ("Site", "Rounds", "Epsilon", "Delta")
    headers += ("Epsilon for life, so far", "of at most") if lasting else ()
    rows = [_list_spending(one)[: len(headers)] for one in shown]
    parts.append(
        e.table(headers, rows, caption=f"Spending by site{more}", figures=range(1, len(headers)))
    )
    if lasting:
        parts.append(_draw_lifetimes(lasting[:MOST_BARS]))
    return parts


def _list_numbers(one: Guarantee) -> dict[str, str]:
    m = one.mechanism
    noun = "rounds" if one.unit == "site" else "steps"
    return {
        "Epsilon": "none" if one.epsilon is None else format_epsilon(one.epsilon),
        "Delta": f"{one.delta:g}",
        "Epsilon by Rényi divergences, as a check": (
            NOTHING if one.check_epsilon is None else format_epsilon(one.check_epsilon)
        ),
        "Noise multiplier": f"{m.noise_multiplier:g}",
        "Clip": f"{m.clip:g}",
        "Sample rate": f"{m.sample_rate:g}",
        "Steps or rounds": f"{m.steps:,} {noun}",
        "Divisor": f"{m.divisor:g}",
    }


def _write_one_meaning(meaning: Meaning, guarantee: Guarantee) -> list[str]:
    parts = [e.paragraph(text) for text in meaning.sentences]
    picture = draw_trade_off(meaning.curve, meaning.attacks, name=guarantee.name)
    caption = (
        "The trade-off curve (f-DP). An attack that accuses more outsiders wrongly may find more"
        " insiders, but never more than the curve; the dotted line is guessing."
    )
    parts.append(e.figure(picture, caption))
    rows = [
        (
            format_rate(one.false_positive_rate),
            format_percent(one.true_positive_rate),
            f"{one.true_positive_rate / one.false_positive_rate:.1f} times",
        )
        for one in meaning.attacks
    ]
    parts.append(
        e.table(
            ("Outsiders accused wrongly", "Insiders found, at most", "Better than guessing"),
            rows,
            caption="What the best attack can do",
            figures=(1, 2),
        )
    )
    parts.append(
        e.figure(
            draw_beliefs(meaning.beliefs),
            "What a suspicion (ring) that one was in the data can become (dot), at most, but for a"
            f" chance of delta: {format_odds(guarantee.delta)}.",
        )
    )
    mu = "none below 100" if meaning.mu is None else f"{meaning.mu:.3f}"
    facts = (
        (
            "",
            "Gaussian mu",
            f"{mu}, fitted to the privacy profile at deltas from {meaning.mu_delta:g} up",
        ),
        (
            "",
            "Advantage",
            (
                f"at most {format_percent(meaning.advantage)}: insiders found less"
                " outsiders accused, for the best attack at its best threshold"
            ),
        ),
    )
    return [*parts, e.fact_table(facts, caption="The same in two numbers")]


def _list_spending(one: SiteSpending) -> tuple[str, ...]:
    life = one.lifetime
    return (
        one.site,
        f"{one.rounds}",
        "no bound" if one.epsilon is None else format_epsilon(one.epsilon),
        NOTHING if one.delta is None else f"{one.delta:g}",
        NOTHING if life is None else format_epsilon(life.committed_epsilon),
        NOTHING if life is None else f"{life.epsilon:g} at {life.delta:g}",
    )


def _draw_lifetimes(sites: list[SiteSpending]) -> str:
    bars = []
    for one in sites:
        life = one.lifetime
        if life is not None:
            share = (float(life.committed) + float(life.reserved)) / float(life.total)
            bars.append(Bar(one.site, share, format_percent(share)))
    picture = draw_bars(bars, title="Lifetime budgets", limit=1.0, limit_name="the whole budget")
    return e.figure(
        picture,
        "How much of its lifetime budget each site has spent or set aside, in Rényi divergence,"
        " over all runs on the same data.",
    )
