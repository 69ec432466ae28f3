"""Contents in chunks: cut anywhere, gone on from there, and complete only with their digest."""

import hashlib
import os
import stat
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.link.content import PartialFile, compute_content_digest, make_chunks, read_chunks
from fedtrain.link.contract import CHUNK_BYTES
from fedtrain.link.faults import ContentError
from tests.membership.members import full_disk

MIB = 2**20
DATA = os.urandom(5 * MIB // 2)
DIGEST = hashlib.sha256(DATA).digest()


def open_partial(path, *, data=DATA):
    return PartialFile(path, size=len(data), digest=hashlib.sha256(data).digest())


def fill(partial, data=DATA, *, until=None):
    """Append chunks from where a file is, up to an offset."""
    for offset, chunk in make_chunks([data[:until]], partial.offset):
        partial.append(offset, chunk)


@given(st.lists(st.integers(0, 3 * MIB // 2), max_size=5), st.data())
@settings(max_examples=10, deadline=None)
def test_chunks_of_buffers_are_the_rest_of_the_content(sizes, data):
    buffers, start = [], 0
    for size in sizes:
        buffers.append(memoryview(DATA * 4)[start : start + size])
        start += size
    whole = b"".join(buffers)
    offset = data.draw(st.integers(0, len(whole)))
    chunks = list(make_chunks(buffers, offset))
    assert b"".join(chunk for _, chunk in chunks) == whole[offset:]
    assert [at for at, _ in chunks] == list(range(offset, len(whole), CHUNK_BYTES))
    assert compute_content_digest(buffers) == (len(whole), hashlib.sha256(whole).digest())


def test_chunks_run_across_many_small_buffers():
    buffers = [DATA[at : at + 1000] for at in range(0, len(DATA), 1000)]
    chunks = list(make_chunks(buffers, 7))
    assert b"".join(chunk for _, chunk in chunks) == DATA[7:]
    assert [len(chunk) for _, chunk in chunks[:-1]] == [CHUNK_BYTES, CHUNK_BYTES]


def test_offset_behind_the_end_is_refused(tmp_path):
    (tmp_path / "content").write_bytes(b"abc")
    assert list(make_chunks([b"ab", b"c"], 3)) == []
    with pytest.raises(ContentError, match="behind the end"):
        list(make_chunks([b"ab", b"c"], 4))
    with (tmp_path / "content").open("rb") as file:
        assert list(read_chunks(file, 3)) == []
        for offset in (4, -1):
            with pytest.raises(ContentError, match="not within"):
                list(read_chunks(file, offset))


@pytest.mark.parametrize("offset", [0, 1, MIB, len(DATA) - 1])
def test_chunks_of_a_file_are_its_rest(tmp_path, offset):
    (tmp_path / "content").write_bytes(DATA)
    with (tmp_path / "content").open("rb") as file:
        chunks = list(read_chunks(file, offset))
    assert b"".join(chunk for _, chunk in chunks) == DATA[offset:]
    assert max(len(chunk) for _, chunk in chunks) <= CHUNK_BYTES


@pytest.mark.parametrize("cuts", [(), (1,), (MIB,), (MIB + 5, 2 * MIB), (len(DATA),)])
def test_content_goes_on_where_a_process_left_it(tmp_path, cuts):
    path = tmp_path / "content"
    for cut in cuts:
        with open_partial(path) as partial:
            fill(partial, until=cut)
    with open_partial(path) as partial:
        assert partial.offset == max(cuts, default=0)
        fill(partial)
        partial.finish()
    assert path.read_bytes() == DATA


def test_file_is_its_owner_s_alone(tmp_path):
    open_partial(tmp_path / "content").close()
    assert stat.S_IMODE((tmp_path / "content").stat().st_mode) == 0o600


def test_link_in_the_place_of_the_file_is_not_followed(tmp_path):
    (tmp_path / "other").write_bytes(b"kept")
    (tmp_path / "content").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        open_partial(tmp_path / "content")
    assert (tmp_path / "other").read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("offset", "data"),
    [(0, b"x"), (4, b"x"), (3, b""), (3, b"x" * (CHUNK_BYTES + 1)), (2**64, b"x"), (-1, b"x")],
)
def test_chunk_that_does_not_fit_is_refused(tmp_path, offset, data):
    with open_partial(tmp_path / "content", data=b"abc" * MIB) as partial:
        partial.append(0, b"abc")
        with pytest.raises(ContentError, match="due at 3"):
            partial.append(offset, data)
        partial.append(3, b"abc")
        assert partial.offset == 6


def test_chunk_behind_the_declared_end_is_refused(tmp_path):
    with open_partial(tmp_path / "content", data=b"abc") as partial:
        with pytest.raises(ContentError, match="1 to 3"):
            partial.append(0, b"abcd")
        partial.append(0, b"abc")
        partial.finish()


def test_content_that_is_not_all_there_is_not_finished(tmp_path):
    with open_partial(tmp_path / "content") as partial:
        fill(partial, until=MIB)
        with pytest.raises(ContentError, match="go on from there"):
            partial.finish()
        assert partial.offset == MIB


@pytest.mark.parametrize("is_restarted", [False, True])
def test_content_with_another_digest_begins_again(tmp_path, is_restarted):
    path = tmp_path / "content"
    partial = open_partial(path)
    fill(partial, bytes(len(DATA)))
    if is_restarted:
        partial.close()
        partial = open_partial(path)
    with partial:
        with pytest.raises(ContentError, match="sent again"):
            partial.finish()
        assert partial.offset == 0
        fill(partial)
        partial.finish()


def test_file_that_is_too_long_begins_again(tmp_path):
    (tmp_path / "content").write_bytes(DATA + b"x")
    with open_partial(tmp_path / "content") as partial:
        assert partial.offset == 0


@pytest.mark.parametrize(
    ("size", "digest"),
    [(-1, DIGEST), (1, b""), (1, DIGEST + b"x")],
    ids=["negative", "no digest", "long digest"],
)
def test_impossible_declaration_is_refused(tmp_path, size, digest):
    with pytest.raises(ContentError, match="digest"):
        PartialFile(tmp_path / "content", size=size, digest=digest)
    assert not list(tmp_path.iterdir())


def test_empty_content_is_complete(tmp_path):
    with open_partial(tmp_path / "content", data=b"") as partial:
        partial.finish()


def test_full_disk_keeps_what_fits_and_goes_on_later(tmp_path):
    with open_partial(tmp_path / "content") as partial:
        with full_disk(MIB + 5), pytest.raises(OSError, match="large"):
            fill(partial)
        assert partial.offset == (tmp_path / "content").stat().st_size == MIB + 5
        fill(partial)
        partial.finish()
    assert (tmp_path / "content").read_bytes() == DATA


def test_memory_is_a_few_chunks(tmp_path):
    large = bytes(32 * MIB)
    tracemalloc.start()
    with open_partial(tmp_path / "content", data=large) as partial:
        fill(partial, large[: 16 * MIB])
        fill(partial, large)
    peak = tracemalloc.get_traced_memory()[1] - 16 * MIB
    tracemalloc.stop()
    assert peak < 4 * MIB
