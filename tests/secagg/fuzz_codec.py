"""Coverage-guided fuzzing of the decoder: `python -m tests.secagg.fuzz_codec [seconds]`.

Needs atheris (`pip install atheris`). Any bytes are read canonically or refused; anything else,
or memory beyond 1 GB, ends the program with an error.
"""

import sys

import atheris

with atheris.instrument_imports(include=["fedtrain.secagg"]):
    from fedtrain.secagg import MessageError, decode, encode, messages


def list_kinds():
    """Return every class of message that travels or is stored alone."""
    found = [kind for kind in vars(messages).values() if isinstance(kind, type)]
    return sorted((k for k in found if hasattr(k, "TAG")), key=lambda kind: kind.TAG)


KINDS = list_kinds()


def read(data):
    """Read bytes as the kind that their third byte names."""
    kind = KINDS[(data[2] - 1) % len(KINDS)] if len(data) > 2 else KINDS[0]
    try:
        message = decode(data, kind)
    except MessageError:
        return
    if encode(message) != data:
        raise AssertionError(f"{kind.__name__}: {data.hex()} is not canonical")


if __name__ == "__main__":
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    limits = [f"-max_total_time={seconds}", "-max_len=2048", "-rss_limit_mb=1000", "-timeout=5"]
    atheris.Setup([sys.argv[0], *limits], read)
    atheris.Fuzz()
