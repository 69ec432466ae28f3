"""Shares that sites reveal at the end of a round, each checked against its dealer's commitment."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import numpy as np

from fedtrain.secagg.binding import commit_share
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.messages import RevealedShare, Unmasking
from fedtrain.secagg.shares import combine

Kind = Literal["seed", "key"]
_KINDS: Final[tuple[Kind, Kind]] = ("seed", "key")


class Openings:
    """The revealed shares of one attempt, by dealer.

    Attributes:
        responders: Sites whose shares were taken.
    """

    def __init__(
        self,
        cohort: tuple[str, ...],
        commitments: Mapping[str, Mapping[str, tuple[bytes, bytes]]],
        *,
        transcript: bytes,
    ) -> None:
        """Begin without shares.

        Args:
            cohort: The sites in the order of their points, 1 for the first.
            commitments: Of each dealer and recipient: to the seed share, to the key share.
            transcript: Digest that the commitments cover.
        """
        self._points = {site: number + 1 for number, site in enumerate(cohort)}
        self._commitments = commitments
        self._transcript = transcript
        self._shares: dict[tuple[Kind, str], dict[str, bytes]] = {}
        self.responders: set[str] = set()

    def add(self, message: Unmasking) -> None:
        """Take a site's shares, all of them or none.

        Raises:
            RefusalError: A share is not the one that was dealt: the site named is at fault, since
                it checked the commitment when it got the share.
        """
        revealed = dict(zip(_KINDS, (message.seed_shares, message.key_shares), strict=True))
        for kind, shares in revealed.items():
            for one in shares:
                self._check(kind, one, message.site)
        for kind, shares in revealed.items():
            for one in shares:
                self._shares.setdefault((kind, one.site), {})[message.site] = one.share
        self.responders.add(message.site)

    def count(self, kind: Kind, dealer: str) -> int:
        """Return how many shares of a dealer's secret are known."""
        return len(self._shares.get((kind, dealer), {}))

    def combine(self, kind: Kind, dealers: Iterable[str], *, threshold: int) -> dict[str, bytes]:
        """Return the secrets of dealers of whom at least `threshold` shares are known.

        Dealers whose shares lie at the same points are computed together.
        """
        groups: dict[tuple[str, ...], list[str]] = {}
        for dealer in dealers:
            holders = tuple(sorted(self._shares[kind, dealer])[:threshold])
            groups.setdefault(holders, []).append(dealer)
        secrets: dict[str, bytes] = {}
        for holders, members in groups.items():
            rows = [b"".join(self._shares[kind, one][h] for h in holders) for one in members]
            shares = np.frombuffer(b"".join(rows), np.uint8)
            table = shares.reshape(len(members), len(holders), -1)
            found = combine(table, [self._points[holder] for holder in holders])
            secrets.update(zip(members, found, strict=True))
        return secrets

    def _check(self, kind: Kind, one: RevealedShare, responder: str) -> None:
        route = (one.site, responder)
        committed = self._commitments[one.site][responder][_KINDS.index(kind)]
        if commit_share(kind, one.share, transcript=self._transcript, route=route) != committed:
            raise RefusalError(
                "share",
                f"{responder!r} reveals a {kind} share of {one.site!r} that was not dealt",
                suspect=responder,
            )
