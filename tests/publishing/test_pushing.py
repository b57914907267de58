"""Models, adapters, data sets and results go to a Hub and come back, through `huggingface_hub`'s own client."""

import json

import pytest
import torch

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor

PUSH = """
import sys
from hf_maskadapter.publishing import push_folder_to_hub
folder, repository, options = arguments
try:
    print(push_folder_to_hub(folder, repository, **options))
except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
"""

@pytest.fixture
def push(client, hub, owner):
    def push(folder, repository="me/model", expect=True, process=owner, **options):
        finished = client.run(PUSH, folder, repository, options, **process)
        assert (finished.status == 0) == expect, finished.stderr
        return finished.stdout if expect else finished.stderr

    return push


def test_model(push, hub, tiny_model_dir):
    print(push(tiny_model_dir))
    assert hub.titles("me/model") == ["Upload model", "initial commit"]
    print(sorted(hub.files("me/model")))
