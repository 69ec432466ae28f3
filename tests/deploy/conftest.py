"""Processes for the tests of a deployment."""

import pytest

from tests.deploy.deployed import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    """What starts coordinators and agents."""
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()
