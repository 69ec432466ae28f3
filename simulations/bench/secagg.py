"""Measures secure aggregation over sizes of vector and cohort, beside the floor and Flower's."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .secagg_floor import count_coordinator_masks, count_site_masks, measure_floor
from .secagg_rival import has_rival, measure_encoding, measure_mask
from .secagg_round import Costs, Span, run_round

SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
SITES: Final = (4, 10, 32, 100)
DROPPED_SHARE: Final = 0.1
# All masks of all sites of a round; 10^7 coordinates at 100 sites would take minutes.
MOST_WORK: Final = 2 * 10**10
_SAMPLES: Final = 8  # sites timed for a line, over several rounds where a cohort is smaller
_FINISHES: Final = 3
_WORD: Final = 4


@dataclass(frozen=True)
class SecaggMeasurement:
    """What was measured of one size and cohort; seconds are the least of the repeats.

    Attributes:
        size: d.
        sites: n.
        dropped: Sites that fell silent after they had shared their keys.
        encode: Seconds to encode an update.
        keys: Seconds of advertise and share at one site.
        mask: Seconds of mask at one site.
        site: Seconds of all three steps at one site.
        site_floor: Seconds of its masks on one core.
        site_work: Processor time of the three steps over that of the floor.
        receive: Seconds of one vector's receipt at the coordinator.
        unmask: Seconds from the shares to the sum.
        unmask_floor: Seconds of the sum's masks on all cores.
        unmask_work: Processor time over that of the floor.
        site_memory: Bytes beyond the vector.
        coordinator_memory: Bytes, the sum among them, without a vector on arrival.
        up: Bytes from one site.
        up_ratio: What of them are no shares, over 4 d.
        down: Bytes to one site.
        flower_site: Seconds of as many of Flower's masks, from the time of one; None without it.
        flower_unmask: Likewise at the coordinator.
        flower_encode: Seconds of its quantisation.
    """

    size: int
    sites: int
    dropped: int
    encode: float
    keys: float
    mask: float
    site: float
    site_floor: float
    site_work: float
    receive: float
    unmask: float
    unmask_floor: float
    unmask_work: float
    site_memory: int
    coordinator_memory: int
    up: int
    up_ratio: float
    down: int
    flower_site: float | None
    flower_unmask: float | None
    flower_encode: float | None

    @property
    def site_ratio(self) -> float:
        """A site's time over its floor."""
        return self.site / self.site_floor

    @property
    def unmask_ratio(self) -> float:
        """The coordinator's unmasking over its floor."""
        return self.unmask / self.unmask_floor


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure_secagg(
    sizes: Sequence[int], sites: Sequence[int], *, threads: int, most_work: float = MOST_WORK
) -> Iterator[SecaggMeasurement]:
    """Measure every combination, without and with dropouts, that is not too much work.

    Args:
        sizes: Values of d.
        sites: Values of n.
        threads: How many add and remove masks.
        most_work: Most d n^2, the coordinates of all masks of a round.
    """
    for size in sizes:
        rival = (measure_mask(size), measure_encoding(size)) if has_rival() else None
        for count in sites:
            if size * count**2 > most_work:
                continue
            for dropped in (0, max(1, round(DROPPED_SHARE * count))):
                yield _measure_case(size, count, dropped=dropped, threads=threads, rival=rival)


def _measure_case(
    size: int, sites: int, *, dropped: int, threads: int, rival: tuple[float, float] | None
) -> SecaggMeasurement:
    floors = [(measure_floor(1), measure_floor(threads))]
    rounds = [
        run_round(size, sites, dropped=dropped, threads=threads, repeats=_FINISHES)
        for _ in range(-(-_SAMPLES // (sites - dropped)))
    ]
    floors.append((measure_floor(1), measure_floor(threads)))  # a disturbance meets both
    one, all_cores = (_find_least(spans) for spans in zip(*floors, strict=True))
    site = _find_least([k + m for c in rounds for k, m in zip(c.keys, c.mask, strict=False)])
    unmask = _find_least([c.open + span for c in rounds for span in c.finish])
    site_masks = count_site_masks(sites)
    unmask_masks = count_coordinator_masks(sites, dropped)
    site_bytes, unmask_bytes = _WORD * size * site_masks, _WORD * size * unmask_masks
    last: Costs = rounds[-1]
    return SecaggMeasurement(
        size=size,
        sites=sites,
        dropped=dropped,
        encode=_find_least([span for c in rounds for span in c.encode]).wall,
        keys=_find_least([span for c in rounds for span in c.keys]).wall,
        mask=_find_least([span for c in rounds for span in c.mask]).wall,
        site=site.wall,
        site_floor=one.wall * site_bytes,
        site_work=site.cpu / (one.cpu * site_bytes),
        receive=_find_least([span for c in rounds for span in c.receive]).wall,
        unmask=unmask.wall,
        unmask_floor=all_cores.wall * unmask_bytes,
        unmask_work=unmask.cpu / (all_cores.cpu * unmask_bytes),
        site_memory=last.site_memory,
        coordinator_memory=last.coordinator_memory,
        up=last.shares_up + last.others_up,
        up_ratio=last.others_up / (_WORD * size),
        down=last.down,
        flower_site=None if rival is None else rival[0] * site_masks,
        flower_unmask=None if rival is None else rival[0] * unmask_masks,
        flower_encode=None if rival is None else rival[1],
    )


def _find_least(spans: Sequence[Span]) -> Span:
    return Span(min(span.wall for span in spans), min(span.cpu for span in spans))
