"""Whether all sites' data has one form, before a run: what differs is named, by site and column."""

import logging
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Final

from fedtrain.data.public import PublicConstants
from fedtrain.data.schema_faults import DifferingSchemaError
from fedtrain.data.statistics import Statistics

log = logging.getLogger("fedtrain.data")

_ALIKE: Final = {
    "input_shape": "records of shape",
    "is_discrete": "ids in place of quantities:",
    "value_range": "values in the range",
    "label_names": "the classes",
}


def verify_schemas(
    public: Mapping[str, PublicConstants], statistics: Mapping[str, Statistics]
) -> None:
    """Compare what sites say of their data.

    Args:
        public: What each site knows without a record.
        statistics: Each site's sums, where the run has them in plain.

    Raises:
        DifferingSchemaError: A site differs from most others in the form of records, their
            classes, or the kind of a column. A column that a site lacks is missing in all of its
            records: that is logged.
    """
    for key, words in _ALIKE.items():
        _verify_alike({site: getattr(one, key) for site, one in public.items()}, words)
    _verify_kinds(statistics)
    union = sorted({name for one in public.values() for name in one.columns or ()})
    for site, one in public.items():
        for name in union:
            if one.columns is not None and name not in one.columns:
                log.warning("schema_differs site=%s lacks=%s", site, name)


def _verify_alike(values: Mapping[str, Hashable], words: str) -> None:
    usual, count = Counter(values.values()).most_common(1)[0] if values else (None, 0)
    for site, value in values.items():
        if value != usual:
            raise DifferingSchemaError(
                f"site {site!r} has {words} {_show(value)}, {count} of {len(values)} sites have"
                f" {_show(usual)}; give all the same"
            )


def _verify_kinds(statistics: Mapping[str, Statistics]) -> None:
    kinds: dict[str, dict[str, str]] = {}
    for site, one in statistics.items():
        for name in one.numeric:
            kinds.setdefault(name, {})[site] = "numbers"
        for name in one.categories:
            kinds.setdefault(name, {})[site] = "text"
    for name, by_site in kinds.items():
        usual, _ = Counter(by_site.values()).most_common(1)[0]
        for site, kind in by_site.items():
            if kind != usual:
                raise DifferingSchemaError(
                    f"site {site!r}: column {name!r} holds {kind}, at most other sites {usual};"
                    " correct it, list the column in data.categorical, or the text in data.missing"
                )


def _show(value: Hashable) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
