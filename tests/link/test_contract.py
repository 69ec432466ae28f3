"""Two releases: the contract's number decides, and both versions are named."""

import pytest

from fedtrain.link.contract import CHUNK_BYTES, INLINE_BYTES, LARGEST_MESSAGE, check_version
from fedtrain.link.faults import ContractError
from fedtrain.membership.records import MAX_CERTIFICATE_BYTES, MAX_MEMBERS


def test_releases_of_one_contract_work_together():
    check_version(("0.1.0", 1), ("0.2.0", 1))


@pytest.mark.parametrize(("own", "other", "older"), [(1, 2, "this one"), (2, 1, "the other end")])
def test_other_contract_is_refused_with_both_versions(own, other, older):
    with pytest.raises(ContractError, match=rf"0\.1\.0 .* {own}, .* 0\.2\.0 .* {other}.*{older}"):
        check_version(("0.1.0", own), ("0.2.0", other))


def test_version_of_the_other_end_is_one_short_line():
    with pytest.raises(ContractError) as caught:
        check_version(("0.1.0", 1), ("\x1b[2J\n" + "9" * 1000, 2))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_largest_message_holds_a_chunk_and_the_largest_membership():
    entry = 64 + 16 + 32 + 32 + 16
    roster_line = 64 + 32 + 8
    assert max(CHUNK_BYTES, INLINE_BYTES) + 1024 < LARGEST_MESSAGE
    assert MAX_MEMBERS * (entry + roster_line) + MAX_CERTIFICATE_BYTES < LARGEST_MESSAGE
