"""One model and one service for all tests of the service's own process."""

import pytest


@pytest.fixture(scope="session")
def segmenter():
    """The embedded model, which sees pictures at half their usual size, to save time."""
    from hf_maskadapter import load_segmenter

    segmenter = load_segmenter("miniature", device="cpu")
    segmenter.processor.image_processor.size = {"shortest_edge": 96, "longest_edge": 160}
    return segmenter


@pytest.fixture(scope="session")
def service(segmenter):
    from hf_maskadapter.serving.service import Service

    return Service(segmenter)


@pytest.fixture(scope="session")
def client(service):
    from support.service import running

    with running(service) as client:
        yield client
