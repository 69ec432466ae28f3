import json

import pytest

from fedtrain.errors import AuditError
from server.audit_log import AuditLog, verify_audit_log


def write_three(path):
    log = AuditLog(path, clock=lambda: 1.5)
    for name in ("a", "b", "c"):
        log.record(name, "admin", "submit", detail="study", outcome="done")
    return log


def test_line_says_who_and_what(tmp_path):
    write_three(tmp_path / "audit.jsonl")
    line = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[1])
    del line["previous"]
    assert line == {
        "index": 1,
        "time_ms": 1500,
        "who": "b",
        "role": "admin",
        "what": "submit",
        "detail": "study",
        "outcome": "done",
    }


def test_log_goes_on_after_a_restart(tmp_path):
    head = write_three(tmp_path / "audit.jsonl").head
    log = AuditLog(tmp_path / "audit.jsonl")
    assert (log.entries, log.head) == (3, head)
    log.record("d", "admin", "stop", outcome="done")
    assert verify_audit_log(tmp_path / "audit.jsonl") == (4, log.head)


def change(lines):
    lines[1] = lines[1].replace(b'"b"', b'"x"')


def remove(lines):
    del lines[1]


def exchange(lines):
    lines[0], lines[1] = lines[1], lines[0]


def garble(lines):
    lines[1] = b"{}\n"


@pytest.mark.parametrize("tamper", [change, remove, exchange, garble])
def test_tampered_log_is_refused(tmp_path, tamper):
    path = tmp_path / "audit.jsonl"
    write_three(path)
    lines = path.read_bytes().splitlines(keepends=True)
    tamper(lines)
    path.write_bytes(b"".join(lines))
    with pytest.raises(AuditError, match="line"):
        AuditLog(path)


def test_torn_last_line_is_moved_aside(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_three(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"index": 3, "wh')
    assert AuditLog(path).entries == 3
    assert path.read_bytes() == whole
    assert (tmp_path / "audit.jsonl.torn").read_bytes() == b'{"index": 3, "wh'


def test_what_others_wrote_is_bounded(tmp_path):
    path = tmp_path / "audit.jsonl"
    AuditLog(path).record("a", "admin", "submit", detail="x" * 10**6, outcome="\n" * 10**6)
    assert len(path.read_bytes()) < 3000
    assert verify_audit_log(path)[0] == 1
