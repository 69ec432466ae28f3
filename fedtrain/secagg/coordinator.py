"""The coordinator's session: one attempt of a round (Bonawitz et al. 2017, figure 4).

    receive_advertisement, close_advertisements     round 0
    receive_shares, close_shares                    round 1
    receive_vector, close_vectors                   round 2
    receive_signature, close_signatures             round 3
    receive_unmasking, finish                       round 4

A `receive_` method takes one site's message in any order of sites, and raises for one that cannot
be used: the site counts as dropped from then on, it is named in `faults`, and the session goes on.
A `close_` method ends a stage and returns what the next one sends out, or raises `RoundVoidError`.

Guarantees:
    * `finish` returns exactly the sum in the ring of the survivors' vectors, or raises.
    * Memory is O(m) whatever the number of sites: masked vectors are summed as they arrive.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from fedtrain.secagg import binding
from fedtrain.secagg.encoding import get_word_type
from fedtrain.secagg.faults import RefusalError, RoundVoidError
from fedtrain.secagg.keys import (
    compute_public_key,
    derive_pair_key,
    derive_self_key,
    load_private_key,
)
from fedtrain.secagg.masks import Words, add_masks
from fedtrain.secagg.messages import (
    Advertisement,
    AdvertisementList,
    EncryptedShares,
    MaskedVector,
    RoundContext,
    ShareDelivery,
    SharePacket,
    SignatureList,
    SignedRoster,
    SurvivorSet,
    SurvivorSignature,
    Unmasking,
)
from fedtrain.secagg.openings import Openings
from fedtrain.secagg.policy import MIN_COHORT
from fedtrain.secagg.roster import get_keys, is_signed
from fedtrain.secagg.transcript import RoundTranscript


@dataclass(frozen=True)
class Fault:
    """A message that could not be used.

    Attributes:
        site: Who sent it, or who is suspected by a site that refused.
        reason: A key of `fedtrain.secagg.faults.REFUSALS`.
        reporter: The site that refused because of it; None: the coordinator itself saw it.
    """

    site: str
    reason: str
    reporter: str | None = None


class CoordinatorSession:
    """The coordinator's part in one attempt of one round.

    Attributes:
        faults: Messages that could not be used, in order.
        transcript: What an auditor needs to check the round.
    """

    def __init__(
        self,
        context: RoundContext,
        roster: SignedRoster,
        *,
        threads: int = 1,
        dropout_share: float = 0.1,
        corrupt_share: float = 0.1,
    ) -> None:
        """Begin an attempt.

        Args:
            context: What the sites are told.
            roster: The federation's.
            threads: How many remove masks at the end.
            dropout_share: As in every site's policy.
            corrupt_share: Likewise.
        """
        self._context = context
        self._roster_keys = get_keys(roster.roster)
        self._threads = threads
        self._shares = {"dropout_share": dropout_share, "corrupt_share": corrupt_share}
        self._digest = binding.compute_context_digest(context)
        self._stage = "advertise"
        self._peers: dict[str, Advertisement] = {}
        self._packets: dict[str, dict[str, SharePacket]] = {}
        self._commitments: dict[str, dict[str, tuple[bytes, bytes]]] = {}
        self._signatures: dict[str, SurvivorSignature] = {}
        self._survivors: set[str] = set()
        self._total: Words = np.zeros(context.length, dtype=get_word_type(context.ring_bits))
        self.faults: list[Fault] = []
        self.transcript = RoundTranscript(context)

    @property
    def survivors(self) -> tuple[str, ...]:
        """U3: sites whose masked vectors are in the sum."""
        return tuple(sorted(self._survivors))

    def report_refusal(self, reporter: str, reason: str, suspect: str | None) -> None:
        """Note that a site refused, and whom it suspects."""
        self.faults.append(Fault(suspect or reporter, reason, reporter))

    def receive_advertisement(self, message: Advertisement) -> None:
        """Take a site's keys (round 0)."""
        self._begin("advertise", message.site, self._context.cohort, self._peers)
        with self._blame(message.site):
            binding.check_advertisement(message, self._digest, self._roster_keys)
            binding.check_keys_differ([*self._peers.values(), message])
        self._peers[message.site] = message

    def close_advertisements(self) -> AdvertisementList:
        """End round 0; the list goes to every site in it."""
        self._end("advertise", "share", self._peers)
        listed = AdvertisementList(tuple(self._peers[site] for site in sorted(self._peers)))
        self._transcript_digest = binding.compute_transcript(self._context, listed)
        self._graph = binding.draw_graph(
            self._context, tuple(sorted(self._peers)), self._transcript_digest, **self._shares
        )
        self._threshold = binding.get_share_threshold(self._context, self._graph)
        self.transcript.note_advertisements(listed)
        return listed

    def receive_shares(self, message: EncryptedShares) -> None:
        """Take a site's encrypted shares (round 1)."""
        self._begin("share", message.site, self._peers, self._packets)
        with self._blame(message.site):
            if message.transcript != self._transcript_digest:
                raise RefusalError(
                    "out-of-turn", f"shares of {message.site!r} are of another round"
                )
            recipients = tuple(packet.site for packet in message.packets)
            if recipients != self._graph.list_neighbours(message.site):
                raise RefusalError("recipients", f"{message.site!r} dealt to other sites than due")
        self._packets[message.site] = {packet.site: packet for packet in message.packets}
        row = {one.site: (one.seed_commitment, one.key_commitment) for one in message.packets}
        row[message.site] = (message.own_commitment, b"")
        self._commitments[message.site] = row

    def close_shares(self) -> dict[str, ShareDelivery]:
        """End round 1; each site gets U2 and the shares for it."""
        self._end("share", "mask", self._packets)
        senders = tuple(sorted(self._packets))
        self._view = binding.compute_view(self._transcript_digest, senders)
        self._senders = senders
        self.transcript.note_senders(senders)
        return {site: ShareDelivery(senders, self._list_packets(site)) for site in senders}

    def receive_vector(self, message: MaskedVector) -> None:
        """Check a masked vector and add it to the sum (round 2)."""
        self._begin("mask", message.site, self._packets, self._survivors)
        with self._blame(message.site):
            if message.view != self._view:
                raise RefusalError("out-of-turn", f"vector of {message.site!r} is of another round")
            size = len(message.words)
            if size != self._total.nbytes:
                raise RefusalError(
                    "vector", f"vector of {message.site!r}: {size} bytes, not {self._total.nbytes}"
                )
            digest = hashlib.sha256(message.words).digest()
            signed = (self._view, message.site, digest)
            self._check_signature(message.site, message.signature, binding.VECTOR, *signed)
        np.add(self._total, np.frombuffer(message.words, self._total.dtype), out=self._total)
        self._survivors.add(message.site)
        self.transcript.note_vector(message.site, digest, message.signature)

    def close_vectors(self) -> SurvivorSet:
        """End round 2; the set goes to every site in it."""
        self._end("mask", "sign", self._survivors)
        self._outcome = binding.compute_outcome(self._view, self.survivors)
        self.transcript.note_survivors(self.survivors)
        return SurvivorSet(self.survivors)

    def receive_signature(self, message: SurvivorSignature) -> None:
        """Take a survivor's signature of the set (round 3)."""
        self._begin("sign", message.site, self._survivors, self._signatures)
        with self._blame(message.site):
            signed = (self._outcome, message.site)
            self._check_signature(message.site, message.signature, binding.SURVIVORS, *signed)
        self._signatures[message.site] = message

    def close_signatures(self) -> SignatureList:
        """End round 3; the list goes to every site in it."""
        self._end("sign", "unmask", self._signatures)
        listed = SignatureList(tuple(self._signatures[s] for s in sorted(self._signatures)))
        self.transcript.note_signatures(listed)
        self._openings = Openings(
            self._context.cohort, self._commitments, transcript=self._transcript_digest
        )
        return listed

    def receive_unmasking(self, message: Unmasking) -> None:
        """Take a site's shares (round 4)."""
        self._begin("unmask", message.site, self._signatures, self._openings.responders)
        with self._blame(message.site):
            if message.view != self._view:
                raise RefusalError(
                    "out-of-turn", f"shares of {message.site!r} are of another round"
                )
            self._check_revealed(message)
            self._openings.add(message)

    def finish(self) -> Words:
        """Remove the masks and return the sum of the survivors' vectors (round 4).

        Returns:
            (m,) words of the ring.

        Raises:
            RoundVoidError: Fewer shares than the threshold, or a dealer's do not fit together.
        """
        self._require("unmask")
        dropped = [site for site in self._senders if site not in self._survivors]
        self._check_enough(dropped)
        seeds = self._openings.combine("seed", self.survivors, threshold=self._threshold)
        keys = self._openings.combine("key", dropped, threshold=self._threshold)
        self._check_opened(seeds, keys)
        added = [derive_self_key(seeds[s], view=self._view, site=s) for s in seeds]
        subtracted: list[bytes] = []
        for site in keys:
            private_key = load_private_key(keys[site])
            for peer in self._survivors.intersection(self._graph.list_neighbours(site)):
                key = derive_pair_key(
                    private_key,
                    self._peers[peer].mask_key,
                    view=self._view,
                    site=site,
                    peer=peer,
                )
                # The survivor added it if its own name is the smaller one.
                (added if peer < site else subtracted).append(key)
        add_masks(self._total, subtracted, added, threads=self._threads)
        self._total &= self._total.dtype.type(2**self._context.ring_bits - 1)
        self._stage = "done"
        self.transcript.note_sum(hashlib.sha256(self._total.data).digest())
        return self._total

    def _require(self, stage: str) -> None:
        if self._stage != stage:
            raise RuntimeError(f"a step of stage {stage!r} was called in stage {self._stage!r}")

    def _begin(
        self,
        stage: str,
        site: str,
        allowed: Collection[str],
        seen: Collection[str],
    ) -> None:
        """Check that a message of a site is due."""
        self._require(stage)
        if site not in allowed:
            raise RefusalError("unknown-site", f"{site!r} has no part in this stage of the round")
        if site in seen:
            raise RefusalError("out-of-turn", f"{site!r} sent its message of this stage twice")

    def _end(self, stage: str, following: str, left: Collection[str]) -> None:
        self._require(stage)
        least = self._context.threshold
        if stage != "sign":
            least = max(least, MIN_COHORT)
        if len(left) < least:
            self._stop("too-few-sites", f"{len(left)} sites are below the threshold {least}")
        self._stage = following

    @contextmanager
    def _blame(self, site: str) -> Iterator[None]:
        """Name a site whose message is refused inside."""
        try:
            yield
        except RefusalError as error:
            self.faults.append(Fault(site, error.reason))
            raise

    def _check_signature(
        self, site: str, signature: bytes, label: str, *parts: bytes | str
    ) -> None:
        if not is_signed(self._roster_keys[site], signature, label, *parts):
            raise RefusalError(
                "signature", f"{label} of {site!r} is not signed by its key", suspect=site
            )

    def _list_packets(self, site: str) -> tuple[SharePacket, ...]:
        """Return what the senders dealt for a site, each under its dealer's name."""
        dealers = [d for d in self._graph.list_neighbours(site) if d in self._packets]
        return tuple(replace(self._packets[dealer][site], site=dealer) for dealer in dealers)

    def _check_revealed(self, message: Unmasking) -> None:
        """Check that a site reveals what the survivor set asks of it, no more and no less."""
        around = {*self._graph.list_neighbours(message.site), message.site}
        dealers = sorted(around.intersection(self._senders))
        seeds = [site for site in dealers if site in self._survivors]
        keys = [site for site in dealers if site not in self._survivors]
        if [one.site for one in message.seed_shares] != seeds or (
            [one.site for one in message.key_shares] != keys
        ):
            raise RefusalError("recipients", f"{message.site!r} reveals other shares than due")

    def _check_enough(self, dropped: Collection[str]) -> None:
        counts = {site: self._openings.count("seed", site) for site in self._survivors}
        counts |= {site: self._openings.count("key", site) for site in dropped}
        short = sorted(site for site, count in counts.items() if count < self._threshold)
        if short:
            self._stop(
                "too-few-shares",
                f"{counts[short[0]]} shares of {short[0]!r} are below the threshold"
                f" {self._threshold}",
            )

    def _check_opened(self, seeds: Mapping[str, bytes], keys: Mapping[str, bytes]) -> None:
        """Check the opened secrets against what their sites signed in round 0."""
        false = [
            site
            for site, seed in seeds.items()
            if binding.commit_seed(self._digest, site, seed) != self._peers[site].seed_commitment
        ]
        false += [
            site
            for site, key in keys.items()
            if compute_public_key(key) != self._peers[site].mask_key
        ]
        if false:
            names = tuple(sorted(false))
            self._stop("bad-dealer", f"shares of {names[0]!r} do not fit together", culprits=names)

    def _stop(self, reason: str, message: str, *, culprits: tuple[str, ...] = ()) -> NoReturn:
        self._stage = "done"
        self.transcript.note_void(reason)
        raise RoundVoidError(reason, f"{message}; the round is void", culprits=culprits)
