"""One federation for the tests of a module: nothing in it is changed by a test."""

import pytest

from tests.link.deployment import Deployment


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """Return a coordinator and the site "alpha", both with the newest membership."""
    made = Deployment(tmp_path_factory.mktemp("federation"))
    made.alpha = made.join("alpha")
    made.install(made.coordinator)
    return made
