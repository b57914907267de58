"""Fixtures: a Hub on loopback and fresh processes that use it."""

import pytest

from support.hub_client import HubClient
from support.hub_server import LocalHub

OWNER_TOKEN, OTHER_TOKEN = "hf_owner", "hf_other"


@pytest.fixture(scope="package")
def server():
    with LocalHub({OWNER_TOKEN: "me", OTHER_TOKEN: "other"}).running() as running:
        yield running


@pytest.fixture(scope="package")
def client(server, tmp_path_factory):
    client = HubClient(server.url, tmp_path_factory.mktemp("clients"))
    yield client
    client.close()


@pytest.fixture
def hub(server):
    """The server without any repository, request or fault of another test."""
    for fault in server.faults:
        fault.released.set()
    server.repositories.clear()
    server.objects.clear()
    server.requests.clear()
    server.faults.clear()
    return server


@pytest.fixture
def owner():
    """Options of a client's process whose user owns `me/...`."""
    return {"token": OWNER_TOKEN}
