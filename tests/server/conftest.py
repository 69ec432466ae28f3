"""A coordinator of its own for each test, copied from one that was made once a module."""

import pytest

from tests.server.deployment import Deployment, copy_deployment


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return Deployment(tmp_path_factory.mktemp("template") / "federation")


@pytest.fixture
def deployment(template, tmp_path):
    return copy_deployment(template, tmp_path / "federation")


@pytest.fixture
def coordinator(deployment):
    with deployment.serving() as coordinator:
        yield coordinator
