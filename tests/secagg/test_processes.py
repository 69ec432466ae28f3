"""A round whose sites are real processes, one for each message: all they keep is on disk."""

import subprocess
import sys

import numpy as np
import pytest

from fedtrain.secagg import (
    CoordinatorSession,
    FileStore,
    SitePolicy,
    decode,
    encode,
    make_roster,
    sign_roster,
)
from fedtrain.secagg.files import create_identity, save_public_key, save_roster
from fedtrain.secagg.messages import (
    Advertisement,
    EncryptedShares,
    MaskedVector,
    SurvivorSignature,
    Unmasking,
)
from tests.secagg.federation import ROOT, Federation, name_sites

ANSWER = """
import pathlib, sys
import numpy as np
from fedtrain.privacy.generator import SecureGenerator
from fedtrain.secagg import DurableSession, FileStore, SitePolicy, decode, encode, files, messages

root, site, step, kind = pathlib.Path(sys.argv[1]), *sys.argv[2:]
key = files.load_root_key(root / "root.pub")
session = DurableSession(
    site,
    files.load_identity(root / f"{site}.key"),
    policy=SitePolicy(key, files.load_roster(root / "roster", key)),
    store=FileStore(root / site),
    run="run-1",
    generator=SecureGenerator.from_system(),
)
message = decode(sys.stdin.buffer.read(), getattr(messages, kind))
if step == "advertise":
    digests = {"config_digest": message.config_digest, "model_digest": message.model_digest}
    answer = session.advertise(message, **digests)
elif step == "mask":
    answer = session.mask(np.arange(64, dtype="<u4") * (int(site[-1]) + 1), message)
else:
    answer = getattr(session, step)(message)
sys.stdout.buffer.write(encode(answer))
"""


@pytest.fixture
def federation(tmp_path):
    """Three sites whose identities, roster and stores are files."""
    federation = Federation(3)
    federation.identities = {s: create_identity(tmp_path / f"{s}.key") for s in name_sites(3)}
    keys = {site: one.public_key for site, one in federation.identities.items()}
    federation.roster = sign_roster(make_roster("test", 1, keys=keys), ROOT)
    federation.policy = SitePolicy(ROOT.public_key, federation.roster)
    save_public_key(tmp_path / "root.pub", ROOT.public_key)
    save_roster(tmp_path / "roster", federation.roster)
    for site in federation.sites:
        FileStore.create(tmp_path / site)
    return federation


def ask(folder, site, step, message, kind):
    """Start a process for one message and return what it answers."""
    command = [sys.executable, "-c", ANSWER, str(folder), site, step, type(message).__name__]
    done = subprocess.run(command, input=encode(message), capture_output=True, check=True)
    return decode(done.stdout, kind)


@pytest.mark.slow
def test_round_of_one_process_a_message_is_exact(federation, tmp_path):
    context = federation.make_context()
    coordinator = CoordinatorSession(context, federation.roster)
    for site in federation.sites:
        coordinator.receive_advertisement(ask(tmp_path, site, "advertise", context, Advertisement))
    listed = coordinator.close_advertisements()
    for site in federation.sites:
        coordinator.receive_shares(ask(tmp_path, site, "share_keys", listed, EncryptedShares))
    for site, delivery in coordinator.close_shares().items():
        coordinator.receive_vector(ask(tmp_path, site, "mask", delivery, MaskedVector))
    survivors = coordinator.close_vectors()
    for site in federation.sites:
        answer = ask(tmp_path, site, "sign_survivors", survivors, SurvivorSignature)
        coordinator.receive_signature(answer)
    signatures = coordinator.close_signatures()
    for site in federation.sites:
        coordinator.receive_unmasking(ask(tmp_path, site, "unmask", signatures, Unmasking))
    assert np.array_equal(coordinator.finish(), 6 * np.arange(64, dtype="<u4"))
