"""One model and one service for all tests of the service's own process."""

import pytest


@pytest.fixture(scope="session")
def segmenter():
    from hf_maskadapter import load_segmenter

    return load_segmenter("miniature", device="cpu")


@pytest.fixture(scope="session")
def service(segmenter):
    from hf_maskadapter.serving.service import Service

    return Service(segmenter)


@pytest.fixture(scope="session")
def client(service):
    from support.service import running

    with running(service) as client:
        yield client
