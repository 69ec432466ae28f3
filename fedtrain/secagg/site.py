"""The site's session: one attempt of one round, one method a step (Bonawitz et al. 2017, fig. 4).

    advertise       round 0, AdvertiseKeys
    share_keys      round 1, ShareKeys
    mask            round 2, MaskedInputCollection
    sign_survivors  round 3, ConsistencyCheck
    unmask          round 4, Unmasking

A step called out of order is a programming error (RuntimeError); what an honest site must not act
on is a `RefusalError`, after which the session can only be discarded. Before a masked vector, a
signature or shares are returned, what the site then may no longer do is in its store.

Guarantees, against a coordinator that does anything and works with fewer than 2t - n sites:
    * The mask keys of an attempt mask one vector, and a restart makes new ones.
    * In one round a site signs one survivor set and reveals of each peer one of its two secrets.
    * Once it has signed, it takes part in no other attempt of the round and in no earlier round.
    * Each of these is for one run: whoever starts a session for a run that the site did not agree
      to lets the coordinator ask for the same update under another name. And sums of later rounds,
      whose model may hardly differ and whose cohort may be one site smaller, may still be
      subtracted from each other, which differential privacy is for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np

from fedtrain.errors import ConfigError
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import binding
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.encoding import get_word_type
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.graph import Graph
from fedtrain.secagg.keys import (
    agree,
    compute_public_key,
    derive_pair_key,
    derive_self_key,
    derive_share_key,
    load_private_key,
    open_sealed,
    seal,
)
from fedtrain.secagg.masks import Words, mask_and_hash
from fedtrain.secagg.messages import (
    SHARE_BYTES,
    Advertisement,
    AdvertisementList,
    EncryptedShares,
    HeldShares,
    MaskedVector,
    RevealedShare,
    RoundContext,
    ShareDelivery,
    SharePacket,
    SignatureList,
    SiteRecord,
    SurvivorSet,
    SurvivorSignature,
    Unmasking,
)
from fedtrain.secagg.policy import SitePolicy
from fedtrain.secagg.roster import Identity, is_signed
from fedtrain.secagg.shares import split
from fedtrain.secagg.store import MASKED, SIGNED, UNMASKED, StateStore


def forget_halves(
    held: tuple[HeldShares, ...], survivors: tuple[str, ...]
) -> tuple[HeldShares, ...]:
    """Return what may still be revealed: of survivors the seed share, of others the key share."""
    gone, alive = bytes(SHARE_BYTES), set(survivors)
    return tuple(
        replace(one, key_share=gone) if one.site in alive else replace(one, seed_share=gone)
        for one in held
    )


class SiteSession:
    """A site's part in one attempt of one round.

    Attributes:
        stage: 0 new, 1 advertised, 2 shared, 3 masked, 4 signed, 5 unmasked.
    """

    def __init__(
        self,
        site: str,
        identity: Identity,
        *,
        policy: SitePolicy,
        store: StateStore,
        generator: SecureGenerator,
        threads: int = 1,
    ) -> None:
        """Prepare a session.

        Args:
            site: This site's identifier in the roster.
            identity: Its long-term key.
            policy: Its minima and pinned roster.
            store: Durable, one record a run; shared by all sessions of the site.
            generator: Source of keys and shares. A deployed site passes
                `SecureGenerator.from_system()`; a seeded one must never be used twice.
            threads: How many mask the vector.

        Raises:
            ConfigError: The identity is not the one that the roster lists for the site.
        """
        self._keys = policy.get_keys()
        if self._keys.get(site) != identity.public_key:
            raise ConfigError(
                f"site {site!r}: its key {identity.public_key.hex()[:16]} is not the roster's;"
                " ask the federation's root for a roster that lists it"
            )
        self.stage = 0
        self._site = site
        self._identity = identity
        self._policy = policy
        self._store = store
        self._generator = generator
        self._threads = threads
        self._secrets: list[bytearray] = []

    @classmethod
    def restore(
        cls,
        state: bytes,
        site: str,
        *,
        identity: Identity,
        policy: SitePolicy,
        store: StateStore,
        generator: SecureGenerator,
    ) -> Self:
        """Return the session of a masked vector after a restart, from what `export_state` gave.

        `store.load(run)` returns the same bytes. Mask keys are not in them: the session signs and
        unmasks, it cannot mask again.

        Raises:
            MessageError: The bytes are no such state.
            RefusalError: The roster was replaced since: its keys may be others.
        """
        session = cls(site, identity, policy=policy, store=store, generator=generator)
        record = decode(state, SiteRecord)
        policy.check_roster(record.context)
        session._record = record
        session._context = record.context
        session.stage = record.stage
        session._graph = session._draw_graph(record.advertised, record.transcript)
        return session

    def export_state(self) -> bytes:
        """Return the session's durable state, as in the store; it holds peers' secrets."""
        self._require(MASKED, SIGNED, UNMASKED)
        return encode(self._record)

    def advertise(
        self, context: RoundContext, *, config_digest: bytes, model_digest: bytes
    ) -> Advertisement:
        """Check the announced round and return this site's signed keys for it (round 0).

        Args:
            context: As announced.
            config_digest: SHA-256 of the config that this site itself runs.
            model_digest: SHA-256 of the model that this site itself received.

        Raises:
            RefusalError: The site's policy or its record of the run forbids to take part.
        """
        self._require(0)
        self._policy.check_context(
            context, self._site, config_digest=config_digest, model_digest=model_digest
        )
        self._check_history(context)
        self._context = context
        digest = binding.compute_context_digest(context)
        drawn = self._generator.draw_bytes(96).tobytes()
        self._secrets = [bytearray(drawn[at : at + 32]) for at in (0, 32, 64)]
        seed, mask_key, share_key = self._secrets
        own = Advertisement(
            self._site,
            compute_public_key(mask_key),
            compute_public_key(share_key),
            binding.commit_seed(digest, self._site, seed),
            bytes(64),
        )
        signed = binding.get_signed_parts(digest, own)
        signature = self._identity.sign(binding.ADVERTISEMENT, *signed)
        self._own = replace(own, signature=signature)
        self.stage = 1
        return self._own

    def share_keys(self, listed: AdvertisementList) -> EncryptedShares:
        """Verify all peers' keys and deal shares of this site's secrets (round 1).

        Raises:
            RefusalError: A key is not its site's, for this very context; or too few are left.
        """
        self._require(1)
        self._check_advertisements(listed.advertisements)
        self._peers = {one.site: one for one in listed.advertisements}
        self._transcript = binding.compute_transcript(self._context, listed)
        self._graph = self._draw_graph(tuple(self._peers), self._transcript)
        neighbours = self._graph.list_neighbours(self._site)
        recipients = sorted((*neighbours, self._site))
        seed, mask_key, _ = self._secrets
        points = [self._context.cohort.index(site) + 1 for site in recipients]
        dealt = split(
            seed + mask_key,
            points,
            threshold=self._get_share_threshold(),
            generator=self._generator,
        )
        shares = dict(zip(recipients, dealt, strict=True))
        self._own_share = shares.pop(self._site)
        self._agree_with(neighbours)
        packets = tuple(self._seal(peer, share) for peer, share in shares.items())
        own_commitment = binding.commit_share(
            "seed",
            self._own_share[:SHARE_BYTES],
            transcript=self._transcript,
            route=(self._site, self._site),
        )
        self.stage = 2
        return EncryptedShares(self._site, self._transcript, own_commitment, packets)

    def mask(self, vector: Words, delivery: ShareDelivery) -> MaskedVector:
        """Open the peers' shares and mask this site's vector (round 2).

        Args:
            vector: (m,) words from `VectorEncoding.encode`; masked in place, so that no second
                copy is held: the array given is not the plain vector any more.
            delivery: U2 and the shares for this site.

        Returns:
            The masked vector, its words a view of `vector`.

        Raises:
            RefusalError: A share is not for this site or not its dealer's; the keys are used up.
            ValueError: The vector is not the one of the context.
        """
        self._require(2)
        words = get_word_type(self._context.ring_bits)
        if vector.shape != (self._context.length,) or vector.dtype != words:
            raise ValueError(
                f"vector {vector.shape} {vector.dtype}: the context asks for"
                f" ({self._context.length},) {words}"
            )
        held = self._open_delivery(delivery)
        view = binding.compute_view(self._transcript, delivery.senders)
        positive, negative = self._derive_masks(view, delivery.senders)
        record = SiteRecord(
            self._context,
            MASKED,
            tuple(self._peers),
            self._transcript,
            delivery.senders,
            held,
            (),
            b"",
        )
        with self._store.lock(self._context.run):
            self._check_history(self._context)
            self._commit(record)
        digest = mask_and_hash(vector, positive, negative, threads=self._threads)
        self._wipe()
        signature = self._identity.sign(binding.VECTOR, view, self._site, digest)
        return MaskedVector(self._site, view, vector.view(np.uint8).data, signature)

    def sign_survivors(self, offered: SurvivorSet) -> SurvivorSignature:
        """Sign the one set of survivors that this site will unmask (round 3).

        Asked again for the same set, it answers again with the same bytes.

        Raises:
            RefusalError: Another set was signed, or this one hides too few sites.
        """
        self._require(MASKED, SIGNED, UNMASKED)
        survivors = offered.survivors
        with self._store.lock(self._record.context.run):
            self._check_current()
            if self.stage == MASKED:
                self._check_survivors(survivors)
                held = forget_halves(self._record.held, survivors)
                signed = replace(self._record, stage=SIGNED, survivors=survivors, held=held)
                self._commit(signed)
            elif survivors != self._record.survivors:
                raise RefusalError(
                    "already-answered", "another survivor set of this round is signed; one is all"
                )
        outcome = binding.compute_outcome(self._view, survivors)
        signature = self._identity.sign(binding.SURVIVORS, outcome, self._site)
        return SurvivorSignature(self._site, signature)

    def unmask(self, listed: SignatureList) -> Unmasking:
        """Reveal seed shares of the survivors and key shares of the others (round 4).

        One set decides, so that no peer loses both. Asked again, it answers with the same bytes.

        Raises:
            RefusalError: Fewer sites than the threshold signed the set that this site signed.
        """
        self._require(SIGNED, UNMASKED)
        with self._store.lock(self._record.context.run):
            self._check_current()
            if self.stage == SIGNED:
                self._check_signatures(listed.signatures)
                unmasking = encode(self._reveal())
                self._commit(replace(self._record, stage=UNMASKED, held=(), unmasking=unmasking))
        return decode(self._record.unmasking, Unmasking)

    def _reveal(self) -> Unmasking:
        survivors = set(self._record.survivors)
        seeds = [one for one in self._record.held if one.site in survivors]
        keys = [one for one in self._record.held if one.site not in survivors]
        return Unmasking(
            self._site,
            self._view,
            tuple(RevealedShare(one.site, one.seed_share) for one in seeds),
            tuple(RevealedShare(one.site, one.key_share) for one in keys),
        )

    @property
    def _view(self) -> bytes:
        return binding.compute_view(self._record.transcript, self._record.senders)

    def _require(self, *stages: int) -> None:
        if self.stage not in stages:
            raise RuntimeError(f"a step of stage {stages} was called in stage {self.stage}")

    def _draw_graph(self, advertised: tuple[str, ...], transcript: bytes) -> Graph:
        return binding.draw_graph(
            self._context,
            advertised,
            transcript,
            dropout_share=self._policy.dropout_share,
            corrupt_share=self._policy.corrupt_share,
        )

    def _get_share_threshold(self) -> int:
        return binding.get_share_threshold(self._context, self._graph)

    def _load_record(self, run: str) -> SiteRecord | None:
        state = self._store.load(run)
        return None if state is None else decode(state, SiteRecord)

    def _commit(self, record: SiteRecord) -> None:
        """Make a record durable; only then may an answer that rests on it leave."""
        self._store.save(record.context.run, encode(record))
        self._record = record
        self.stage = record.stage

    def _check_history(self, context: RoundContext) -> None:
        """Refuse what this site's record of the run forbids."""
        last = self._load_record(context.run)
        if last is None:
            return
        now = (context.round, context.attempt)
        then = (last.context.round, last.context.attempt)
        if context.round == last.context.round and last.stage >= SIGNED:
            raise RefusalError(
                "already-answered",
                f"round {context.round} is signed or unmasked here; another attempt of it would"
                " reveal the difference of two sums",
            )
        if now == then:
            raise RefusalError(
                "already-masked", f"round {now[0]} attempt {now[1]} is masked; make a new attempt"
            )
        if now < then:
            raise RefusalError("replay", f"round {now[0]} attempt {now[1]} is past")

    def _check_current(self) -> None:
        """Refuse if another session of this site has moved the run on."""
        if self._store.load(self._record.context.run) != encode(self._record):
            raise RefusalError("already-answered", "this site has left this attempt behind")

    def _check_advertisements(self, advertisements: Sequence[Advertisement]) -> None:
        binding.check_sites([one.site for one in advertisements], self._context.cohort)
        self._policy.check_remaining(len(advertisements), self._context)
        if self._own not in advertisements:
            raise RefusalError("own-entry", "this site's own keys are missing or exchanged")
        digest = binding.compute_context_digest(self._context)
        for one in advertisements:
            binding.check_advertisement(one, digest, self._keys)
        binding.check_keys_differ(advertisements)

    def _agree_with(self, neighbours: Sequence[str]) -> None:
        """Agree on the keys of the shares with each neighbour."""
        own = load_private_key(self._secrets[2])
        self._agreed = {
            peer: bytearray(agree(own, self._peers[peer].share_key, peer=peer))
            for peer in neighbours
        }

    def _seal(self, peer: str, share: bytes) -> SharePacket:
        route = (self._site, peer)
        key = derive_share_key(self._agreed[peer], transcript=self._transcript, route=route)
        return SharePacket(
            peer,
            seal(key, share, transcript=self._transcript, route=route),
            *binding.commit_halves(share, transcript=self._transcript, route=route),
        )

    def _open_delivery(self, delivery: ShareDelivery) -> tuple[HeldShares, ...]:
        """Check U2 and open the neighbours' shares; this site's own seed share joins them."""
        binding.check_sites(delivery.senders, self._peers)
        if self._site not in delivery.senders:
            raise RefusalError("own-entry", "this site's shares are said to be missing")
        self._policy.check_remaining(len(delivery.senders), self._context)
        senders = set(delivery.senders)
        expected = [s for s in self._graph.list_neighbours(self._site) if s in senders]
        if [packet.site for packet in delivery.packets] != expected:
            raise RefusalError("recipients", "shares are missing or come from others than asked")
        opened = [self._open(packet) for packet in delivery.packets]
        own = HeldShares(self._site, self._own_share[:SHARE_BYTES], bytes(SHARE_BYTES))
        return tuple(sorted((*opened, own), key=lambda one: one.site))

    def _open(self, packet: SharePacket) -> HeldShares:
        route = (packet.site, self._site)
        key = derive_share_key(self._agreed[packet.site], transcript=self._transcript, route=route)
        share = open_sealed(key, packet.ciphertext, transcript=self._transcript, route=route)
        committed = (packet.seed_commitment, packet.key_commitment)
        halves = binding.commit_halves(share, transcript=self._transcript, route=route)
        if halves != committed:
            raise RefusalError(
                "share",
                f"the share of {packet.site!r} is not the one it committed to; drop that site",
                suspect=packet.site,
            )
        return HeldShares(packet.site, share[:SHARE_BYTES], share[SHARE_BYTES:])

    def _derive_masks(self, view: bytes, senders: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
        """Return the keys of masks to add and to subtract: + towards greater names."""
        seed = self._secrets[0]
        mask_key = load_private_key(self._secrets[1])
        positive = [derive_self_key(seed, view=view, site=self._site)]
        negative: list[bytes] = []
        for peer in set(self._graph.list_neighbours(self._site)).intersection(senders):
            key = derive_pair_key(
                mask_key, self._peers[peer].mask_key, view=view, site=self._site, peer=peer
            )
            (positive if self._site < peer else negative).append(key)
        return positive, negative

    def _check_survivors(self, survivors: tuple[str, ...]) -> None:
        binding.check_sites(survivors, self._record.senders)
        if self._site not in survivors:
            raise RefusalError("own-entry", "this site is said to have dropped out; it has not")
        self._policy.check_remaining(len(survivors), self._record.context)
        least = self._graph.plan.window_survivors
        if self._graph.count_fewest_survivors(frozenset(survivors)) < least:
            raise RefusalError("graph", f"dropouts leave fewer than {least} sites of a window")

    def _check_signatures(self, signatures: Sequence[SurvivorSignature]) -> None:
        """Count valid signatures of the very set that this site signed (fig. 4, round 4)."""
        binding.check_sites([one.site for one in signatures], self._record.survivors)
        outcome = binding.compute_outcome(self._view, self._record.survivors)
        for one in signatures:
            signed = (binding.SURVIVORS, outcome, one.site)
            if not is_signed(self._keys[one.site], one.signature, *signed):
                raise RefusalError(
                    "signature",
                    f"{one.site!r} did not sign the survivor set that this site signed",
                    suspect=one.site,
                )
        if len(signatures) < self._record.context.threshold:
            raise RefusalError(
                "quorum",
                f"{len(signatures)} signatures are below the threshold"
                f" {self._record.context.threshold}",
            )

    def _wipe(self) -> None:
        """Overwrite this attempt's secrets; copies in the interpreter's heap may outlive them."""
        for secret in (*self._secrets, *self._agreed.values()):
            secret[:] = bytes(len(secret))
        self._secrets = []
        self._agreed = {}
        self._own_share = b""
