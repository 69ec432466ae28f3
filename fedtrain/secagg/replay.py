"""A site's session whose process may end after every message.

A node may start a process for each message, so that nothing lives in memory between two stages.
After masking the site's record is in the store anyway (`SiteSession.restore`). Before, this module
keeps what the site answered and a fresh seed, and the next process takes the same steps again with
`SecureGenerator(seed)`: the same draws from the same input are the same keys and shares.

    advertise       a fresh seed and the context are saved, then the keys leave
    share_keys      the advertisements are saved, then the shares leave; no others are answered
    mask            the record of the masked vector is saved and the seed forgotten, then it leaves
    sign_survivors  from the record of the masked vector
    unmask          from the record of the masked vector

A process that lives on may hold the session of its last step (`LiveSessions`) and take the next one
with that, where the store still says what it said after the last: the same bytes, without the steps
before.

Guarantees, besides those of `SiteSession`:
    * A seed draws for one context and one list of advertisements, so that no two transcripts have
      keys or shares in common; asked again for the same, the site answers the same bytes.
    * No masked vector leaves while its seed is stored. A process that is killed in between sends
      none, and the next one that asks for the attempt forgets the seed.
    * A run has one attempt before masking: a newer one takes its place, and its seed is gone.
    * Processes that work on messages of one run at a time take turns.
"""

from dataclasses import dataclass, replace

from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg.codec import decode, encode
from fedtrain.secagg.faults import RefusalError
from fedtrain.secagg.masks import Words
from fedtrain.secagg.messages import (
    SEED_BYTES,
    Advertisement,
    AdvertisementList,
    AttemptRecord,
    EncryptedShares,
    MaskedVector,
    RoundContext,
    ShareDelivery,
    SignatureList,
    SiteRecord,
    SurvivorSet,
    SurvivorSignature,
    Unmasking,
)
from fedtrain.secagg.policy import SitePolicy
from fedtrain.secagg.roster import Identity
from fedtrain.secagg.site import SiteSession
from fedtrain.secagg.store import MASKED, SIGNED, StateStore


def pin_text(store: StateStore, name: str, text: str) -> None:
    """Pin what must not change for as long as the store lasts, such as the run of a config.

    A run has a history of its own. A coordinator that could change what a run is called could ask
    for the same round under another name, with one site fewer, and subtract.

    Args:
        store: The site's.
        name: What is pinned; the caller makes it unique.
        text: Its value: the first that is given stays.

    Raises:
        RefusalError: Another value was pinned before.
    """
    key = f"pinned/{name}"
    with store.lock(key):
        pinned = store.load(key)
        if pinned is None:
            store.save(key, text.encode())
        elif pinned != text.encode():
            raise RefusalError("context", f"{name} is pinned to another value at this site")


def load_pinned(store: StateStore, name: str) -> str | None:
    """Return what `pin_text` pinned under a name, or None."""
    pinned = store.load(f"pinned/{name}")
    return None if pinned is None else pinned.decode()


def load_context(store: StateStore, run: str) -> RoundContext | None:
    """Return the context that a site accepted last in a run; None: none yet."""
    state = store.load(_name_attempt(run))
    return None if state is None else decode(state, AttemptRecord).context


@dataclass(frozen=True)
class _Live:
    """A session after a step, and all that its next step would be replayed from."""

    session: SiteSession
    policy: SitePolicy
    kept: AttemptRecord
    record: SiteRecord | None


LiveSessions = dict[str, _Live]
"""What a process holds of one site's attempts, by run; to be handed from session to session."""


def _name_attempt(run: str) -> str:
    return f"attempt/{run}"


class DurableSession:
    """A site's part in the attempts of one run, one after the other; made anew for each message.

    Every refusal leaves the stored state as it was, so that a step can be asked again.
    """

    def __init__(
        self,
        site: str,
        identity: Identity,
        *,
        policy: SitePolicy,
        store: StateStore,
        run: str,
        generator: SecureGenerator,
        threads: int = 1,
        live: LiveSessions | None = None,
    ) -> None:
        """Prepare to go on where the store says that this site is.

        Args:
            site: This site's identifier in the roster.
            identity: Its long-term key.
            policy: Its minima and pinned roster.
            store: Durable; the site's only one.
            run: The run that the site agreed to take part in, from the site's own knowledge.
            generator: Source of seeds. A deployed site passes `SecureGenerator.from_system()`.
            threads: How many mask the vector.
            live: What this process holds of the same site's attempts; None: nothing.

        Raises:
            ConfigError: The identity is not the one that the roster lists for the site.
        """
        self._site = site
        self._identity = identity
        self._policy = policy
        self._store = store
        self._run = run
        self._generator = generator
        self._threads = threads
        self._live = {} if live is None else live
        self._key = _name_attempt(run)
        self._open_session(generator)  # a wrong identity is found before the first step

    def advertise(
        self, context: RoundContext, *, config_digest: bytes, model_digest: bytes
    ) -> Advertisement:
        """Do as `SiteSession.advertise`; an attempt in progress of another context ends.

        Raises:
            RefusalError: The site's policy or its record of the run forbids to take part, or the
                context is another run's.
        """
        if context.run != self._run:
            raise RefusalError("context", "the context is of another run than this site agreed to")
        with self._store.lock(self._key):
            kept = self._load_attempt()
            if kept is None or kept.context != context or not kept.seed:
                seed = self._generator.draw_bytes(SEED_BYTES).tobytes()
                kept = AttemptRecord(context, seed, b"")
            session = self._start(kept)
            answer = session.advertise(
                context, config_digest=config_digest, model_digest=model_digest
            )
            self._save(kept)
            self._hold(session, kept)
        return answer

    def share_keys(self, listed: AdvertisementList) -> EncryptedShares:
        """Do as `SiteSession.share_keys`, for one list of advertisements an attempt.

        Raises:
            RefusalError: A key is not its site's, too few are left, or another list was answered.
        """
        with self._store.lock(self._key):
            kept = self._require_attempt()
            self._check_unanswered(kept, encode(listed))
            session = self._take_live(kept, 1) or self._replay_advertise(kept)
            answer = session.share_keys(listed)
            kept = replace(kept, listed=encode(listed))
            self._save(kept)
            self._hold(session, kept)
        return answer

    def mask(self, vector: Words, delivery: ShareDelivery) -> MaskedVector:
        """Do as `SiteSession.mask`: once an attempt, whatever is asked.

        Raises:
            RefusalError: A share is not for this site or not its dealer's, or a vector was masked.
            ValueError: The vector is not the one of the context.
        """
        with self._store.lock(self._key):
            kept = self._require_attempt()
            if not kept.listed:
                raise RefusalError("out-of-turn", "this site has not dealt its shares yet")
            session = self._take_live(kept, 2) or self._replay_share_keys(kept)
            answer = session.mask(vector, delivery)
            self._forget(kept)
        return answer

    def sign_survivors(self, offered: SurvivorSet) -> SurvivorSignature:
        """Do as `SiteSession.sign_survivors`.

        Raises:
            RefusalError: Another set was signed, this one hides too few sites, or no vector of the
                run is masked.
        """
        return self._restore(MASKED).sign_survivors(offered)

    def unmask(self, listed: SignatureList) -> Unmasking:
        """Do as `SiteSession.unmask`.

        Raises:
            RefusalError: Too few sites signed the set that this site signed, or it signed none.
        """
        return self._restore(SIGNED).unmask(listed)

    def _open_session(self, generator: SecureGenerator) -> SiteSession:
        return SiteSession(
            self._site,
            self._identity,
            policy=self._policy,
            store=self._store,
            generator=generator,
            threads=self._threads,
        )

    def _start(self, kept: AttemptRecord) -> SiteSession:
        return self._open_session(SecureGenerator(kept.seed))

    def _replay_advertise(self, kept: AttemptRecord) -> SiteSession:
        """Return the session as it was after it advertised; its own digests were checked then."""
        session, context = self._start(kept), kept.context
        session.advertise(
            context, config_digest=context.config_digest, model_digest=context.model_digest
        )
        return session

    def _replay_share_keys(self, kept: AttemptRecord) -> SiteSession:
        session = self._replay_advertise(kept)
        session.share_keys(decode(kept.listed, AdvertisementList))
        return session

    def _hold(self, session: SiteSession, kept: AttemptRecord) -> None:
        self._live[self._run] = _Live(session, self._policy, kept, self._load_record())

    def _take_live(self, kept: AttemptRecord, stage: int) -> SiteSession | None:
        """Return the session of the step before, if a replay would give the same; once only.

        A step that fails may leave a session half changed: nobody gets it again.
        """
        live = self._live.pop(self._run, None)
        if live is None or live.session.stage != stage:
            return None
        same = (live.policy, live.kept, live.record) == (self._policy, kept, self._load_record())
        return live.session if same else None

    def _restore(self, least: int) -> SiteSession:
        record = self._load_record()
        if record is None or record.stage < least:
            raise RefusalError("out-of-turn", "the stage before this one is missing at this site")
        return SiteSession.restore(
            encode(record),
            self._site,
            identity=self._identity,
            policy=self._policy,
            store=self._store,
            generator=self._generator,
        )

    def _load_record(self) -> SiteRecord | None:
        state = self._store.load(self._run)
        return None if state is None else decode(state, SiteRecord)

    def _load_attempt(self) -> AttemptRecord | None:
        """Return the latest attempt, its seed forgotten if it masked: a killed process did not."""
        state = self._store.load(self._key)
        if state is None:
            return None
        kept, record = decode(state, AttemptRecord), self._load_record()
        if record is not None and record.context == kept.context:
            kept = self._forget(kept)
        return kept

    def _require_attempt(self) -> AttemptRecord:
        kept = self._load_attempt()
        if kept is None:
            raise RefusalError("out-of-turn", "this site has advertised no keys in this run")
        if not kept.seed:
            raise RefusalError("already-masked", "the keys of this attempt are used up")
        return kept

    def _check_unanswered(self, kept: AttemptRecord, listed: bytes) -> None:
        """Refuse a second list: its draws would be those of the first."""
        if kept.listed not in (b"", listed):
            raise RefusalError(
                "already-answered", "shares were dealt for other advertisements of this attempt"
            )

    def _save(self, kept: AttemptRecord) -> None:
        self._store.save(self._key, encode(kept))

    def _forget(self, kept: AttemptRecord) -> AttemptRecord:
        used = replace(kept, seed=b"", listed=b"")
        self._save(used)
        return used
