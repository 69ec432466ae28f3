"""Whether a site that a coordinator does not know was revoked, or is only too new to it."""

import re
from typing import Final

from fedtrain.link.faults import RevokedError, UnavailableError

_VERSION: Final = re.compile(r"not in version ([0-9]{1,18}) of")


def find_older(error: RevokedError, own_version: int) -> UnavailableError | None:
    """Return what to wait for where the coordinator's membership is older than this site's.

    Args:
        error: What the coordinator said of this site.
        own_version: Of the membership that this site has pinned, and that lists it.

    Returns:
        What is missing there; None where the coordinator's is not older: the site was revoked.
    """
    found = _VERSION.search(str(error))
    if found is None or int(found[1]) >= own_version:
        return None
    return UnavailableError(
        f"the coordinator has version {found[1]} of the membership, which does not list this site;"
        f" hand it version {own_version} or newer: fedtrain server install MEMBERSHIP"
    )
