import pytest

from tests.clients.coordinator import Coordinator, make_site
from tests.link.deployment import Deployment


@pytest.fixture
def deployment(tmp_path):
    return Deployment(tmp_path)


@pytest.fixture
def site(deployment):
    """The folder of a site that has joined."""
    return make_site(deployment)


@pytest.fixture
def coordinator(deployment):
    """A coordinator that serves."""
    with Coordinator(deployment).serving() as coordinator:
        yield coordinator
