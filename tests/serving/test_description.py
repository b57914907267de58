"""The OpenAPI description: complete, with examples that work as they stand, and no request of it breaks the service."""

import json

import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx", "schemathesis")

import hypothesis  # noqa: E402
import schemathesis  # noqa: E402

from hf_maskadapter.serving.descriptions import example_picture  # noqa: E402
from hf_maskadapter.serving.schemas import SegmentationAnswer, ServedModels  # noqa: E402

ASKING = ("/v1/segment", "/v1/classify")


@pytest.fixture(scope="module")
def description(client):
    return client.get("/openapi.json").raise_for_status().json()


def references(value):
    if isinstance(value, dict):
        yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        value = value.values()
    if isinstance(value, (list, type({}.values()))):
        for part in value:
            yield from references(part)


def test_every_reference_leads_somewhere(description):
    found = set(references(description))
    assert found
    for reference in found:
        place = description
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_every_answer_of_the_service_is_described(description):
    for path in ASKING:
        operation = description["paths"][path]["post"]
        assert set(operation["responses"]) == {"200", *["400", "401", "408", "413", "415", "422", "500", "503", "504"]}
        assert set(operation["responses"]["200"]["content"]) == {"application/json", "image/png"}
        assert "application/json" in operation["requestBody"]["content"]
        assert operation["summary"]
        assert operation["description"]


@pytest.mark.parametrize("path", ASKING)
def test_every_example_of_json_works(client, description, path):
    examples = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert examples
    for example in examples.values():
        answer = client.post(path, json=example["value"])
        assert answer.status_code == 200, answer.text
        if answer.headers["content-type"] == "application/json":
            SegmentationAnswer.model_validate_json(answer.content)
        else:
            assert example["value"]["format"] == "png"
            assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize("path", ASKING)
def test_the_example_of_a_form_works_with_the_file_in_its_place(client, description, path):
    example = dict(description["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["example"])
    assert example.pop("image") == "(the file)"
    answer = client.post(path, files={"image": example_picture()}, data=example)
    assert answer.status_code == 200, answer.text
    assert SegmentationAnswer.model_validate_json(answer.content).segments


def test_the_models_are_told_in_the_form_described(client):
    told = ServedModels.model_validate_json(client.get("/v1/models").content)
    assert (told.models[0].name, told.models[0].num_parameters) == ("miniature", 2_109_730)
    assert told.models[0].mask_embeddings == ["adapter", "pooling", "crop"]
    assert told.limits == {"upload_bytes": 20e6, "pixels": 25e6, "labels": 1000, "masks": 100, "seconds": 60}
    assert "ade20k_150" in told.label_sets


def no_server_error(client, description, examples):
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(description)))
    schema.config.update(base_url=str(client.base_url))
    statuses = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        )
        def ask(case):
            answer = case.call()
            statuses.add(answer.status_code)
            assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"

        ask()
    return statuses


def test_no_request_that_the_description_allows_breaks_the_service(client, description):
    assert no_server_error(client, description, 10) >= {200, 422}


@pytest.mark.slow
def test_a_thousand_requests_that_the_description_allows_do_not_break_the_service(client, description):
    no_server_error(client, description, 300)
