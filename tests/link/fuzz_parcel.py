"""Coverage-guided fuzzing of parcels: `python -m tests.link.fuzz_parcel [seconds]`.

Needs atheris (`pip install atheris`). Any bytes are read canonically or refused; anything else, or
memory beyond 1 GB, ends the program with an error.
"""

import sys

import atheris

with atheris.instrument_imports(include=["fedtrain.link.parcel"]):
    from fedtrain.link.parcel import pack, unpack

from fedtrain.link.faults import ParcelError


def read(data):
    """Read bytes as they are, and as a header in an envelope that fits."""
    size = len(data).to_bytes(8, "little")
    for candidate in (data, size + data, size + data + bytes(-(8 + len(data)) % 64) + bytes(256)):
        try:
            parcel = unpack(candidate)
        except ParcelError:
            continue
        if b"".join(pack(parcel)) != candidate:
            raise AssertionError(f"{candidate.hex()} is not canonical")


if __name__ == "__main__":
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    limits = [f"-max_total_time={seconds}", "-max_len=2048", "-rss_limit_mb=1000", "-timeout=5"]
    atheris.Setup([sys.argv[0], *limits], read)
    atheris.Fuzz()
