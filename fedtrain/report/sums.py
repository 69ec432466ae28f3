"""Secure aggregation round by round: what the coordinator could see of one site."""

from typing import Final

from fedtrain.audit.evidence import Evidence
from fedtrain.audit.sums import TRAINING, count_signatures
from fedtrain.report.document import SecureSums, SumRound

PROTOCOL: Final = (
    "The coordinator learned the sum over the surviving sites of each round, or nothing: each"
    " site's vector was masked, and the masks cancel only in the sum."
)
LIMIT: Final = (
    "What a sum tells is not limited by this: it is of many sites, not of none. A bound on what the"
    " sums tell is the guarantee's part."
)
ARITHMETIC: Final = (
    "The sum was computed as secure aggregation would, but without keys: the coordinator could see"
    " each site's vector."
)
OFF: Final = "Off: the coordinator saw each site's update as the site sent it."
SIMULATED: Final = (
    "The identities of this simulation follow from its seed; the signatures show damage, not"
    " forgery."
)


def build_sums(evidence: Evidence) -> SecureSums:
    """Return the secure sums of a run; without a transcript, its rounds."""
    mode = evidence.mode
    rounds = _list_sums(evidence) if mode == "protocol" else _list_rounds(evidence)
    told = {"protocol": (PROTOCOL, LIMIT), "arithmetic": (ARITHMETIC,), "off": (OFF,)}[mode]
    if mode == "protocol" and evidence.roster.simulated:
        told = (*told, SIMULATED)
    training = [one for one in rounds if one.purpose == TRAINING]
    return SecureSums(
        mode=mode,
        sentences=told,
        signatures=sum(one.signatures for one in rounds),
        void_rounds=sum(one.void is not None for one in training),
        rounds=rounds,
    )


def _list_sums(evidence: Evidence) -> tuple[SumRound, ...]:
    reasons = {line["round"]: line.get("void") for line in evidence.metrics}
    found = []
    for one in evidence.sums:
        void = one.record.get("void")
        if void is not None and one.purpose == TRAINING:
            void = reasons.get(one.context.round) or void
        found.append(
            SumRound(
                round=one.context.round,
                purpose=one.purpose,
                cohort=len(one.context.cohort),
                threshold=one.context.threshold,
                survivors=0 if void is not None else len(one.record["survivors"]),
                signatures=count_signatures(one),
                void=void,
            )
        )
    summed = {one.round for one in found if one.purpose == TRAINING}
    missing = [one for one in _list_rounds(evidence) if one.round not in summed]
    return tuple(sorted((*found, *missing), key=lambda one: (one.round, one.purpose != TRAINING)))


def _list_rounds(evidence: Evidence) -> tuple[SumRound, ...]:
    least = max(1, evidence.config.federation.min_survivors)
    return tuple(
        SumRound(
            round=line["round"],
            purpose=TRAINING,
            cohort=line["cohort"],
            threshold=line.get("threshold"),
            survivors=line["survivors"],
            signatures=0,
            void=line.get("void") or (None if line["survivors"] >= least else "too few updates"),
        )
        for line in evidence.metrics
    )
