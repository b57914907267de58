"""From where pictures of Label Studio's tasks are taken, and from where not."""

import asyncio
import base64

import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")

import httpx  # noqa: E402

from hf_maskadapter.serving.errors import RequestError  # noqa: E402
from hf_maskadapter.serving.label_studio_options import LabelStudioOptions  # noqa: E402
from hf_maskadapter.serving.task_pictures import TaskPictures  # noqa: E402

URL = "http://studio.example:8080"
LONG_TOKEN = "head.content.signature"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def read(address, answer=None, max_bytes=1000, **options):
    """What is read, and the requests that were made for it."""
    requests = []

    def handle(request):
        requests.append(request)
        if request.url.path == "/api/token/refresh/":
            return httpx.Response(200, json={"access": "fresh"})
        return answer or httpx.Response(200, content=b"picture")

    async def run():
        pictures = TaskPictures(LabelStudioOptions(**options), max_bytes, httpx.MockTransport(handle))
        try:
            return await pictures.read(address)
        finally:
            await pictures.close()

    return asyncio.run(run()), requests


def refused(address, sentence, status=422, **options):
    with pytest.raises(RequestError) as error:
        read(address, **options)
    assert sentence in error.value.sentence
    assert error.value.status == status


@pytest.mark.parametrize("address", ["/data/upload/1/a.png", f"{URL}/data/upload/1/a.png"])
def test_uploads_are_fetched_from_label_studio_with_its_token(address, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "abc")
    content, (request,) = read(address, label_studio_url=f"{URL}/")
    assert content == b"picture"
    assert str(request.url) == f"{URL}/data/upload/1/a.png"
    assert request.headers["authorization"] == "Token abc"


def test_the_environment_names_label_studio_too(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", URL)
    content, (request,) = read("/data/local-files/?d=a%20b.png")
    assert (content, str(request.url)) == (b"picture", f"{URL}/data/local-files/?d=a%20b.png")
    assert "authorization" not in request.headers


def test_label_studio_may_lie_below_a_path():
    _, (request,) = read(f"{URL}/studio/data/upload/a.png", label_studio_url=f"{URL}/studio")
    assert str(request.url) == f"{URL}/studio/data/upload/a.png"


def test_a_personal_token_is_exchanged_for_one_that_gives_access(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", LONG_TOKEN)
    _, (exchange, request) = read("/data/upload/1/a.png", label_studio_url=URL)
    assert (exchange.method, exchange.read()) == ("POST", b'{"refresh":"head.content.signature"}')
    assert request.headers["authorization"] == "Bearer fresh"


def test_named_hosts_get_no_token(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "abc")
    options = {"label_studio_url": URL, "label_studio_hosts": ("images.example.org",)}
    _, (request,) = read("https://images.example.org/a.png?size=2", **options)
    assert "authorization" not in request.headers
    refused("https://images.example.org:8443/a.png", "no pictures are fetched", **options)


def test_a_data_address_is_read_where_it_stands():
    address = "data:image/png;base64," + base64.b64encode(b"picture").decode()
    assert read(address) == (b"picture", [])
    refused("data:image/png;base64,%%", "no Base64")
    refused("data:text/plain;base64,AAAA", "must begin with data:image/")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://127.0.0.1/a.png", "it lies at 127.0.0.1, from where no pictures are fetched"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
        ("http://studio.example/data/upload/a.png", "it lies at studio.example"),  # another port
        ("https://studio.example:8080/data/upload/a.png", "it lies at studio.example"),  # another scheme
        ("http://studio.example:8080@127.0.0.1/data/upload/a.png", "it lies at 127.0.0.1"),
        ("//127.0.0.1/data/upload/a.png", "which is not fetched"),
        ("file:///etc/passwd", "which is not fetched"),
        ("http:///a.png", "which is not fetched"),
        ("http://[::1/a.png", "its address is malformed"),
        ("http://studio.example:99999/data/upload/a.png", "its address is malformed"),
        ("/data/upload/\ud800.png", "its address is malformed"),
        ("s3://bucket/a.png", "which is not fetched"),
        ("/etc/passwd", "below /data/"),
        ("/api/users/", "below /data/"),
        ("/data/../api/users/", "leads out of its folder"),
        ("/data/%2e%2e/api/users/", "leads out of its folder"),
    ],
)
def test_no_other_address_is_asked(address, sentence):
    refused(address, sentence, label_studio_url=URL)


def test_without_its_address_label_studio_is_not_guessed():
    refused("/data/upload/1/a.png", "start the service with --label-studio-url and LABEL_STUDIO_API_KEY")


@pytest.mark.parametrize(
    ("answer", "sentence", "status"),
    [
        (httpx.Response(302, headers={"location": "http://127.0.0.1/"}), "sends elsewhere, which is not followed", 424),
        (httpx.Response(401), "answers with status 401; check LABEL_STUDIO_API_KEY", 424),
        (httpx.Response(500), "answers with status 500.", 424),
        (httpx.Response(200, content=b"x" * 1001), "larger than 1000 bytes", 413),
    ],
)
def test_what_cannot_be_had_is_told(answer, sentence, status):
    refused("/data/upload/1/a.png", sentence, status, answer=answer, label_studio_url=URL)


def test_local_files_are_read_from_the_folder_and_nowhere_else(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a b.png").write_bytes(b"local")
    (folder / "large.png").write_bytes(b"x" * 1001)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    options = {"label_studio_files": folder, "label_studio_url": URL}
    assert read("/data/local-files/?d=sub/a%20b.png", **options) == (b"local", [])
    assert read(f"{URL}/data/local-files/?d=sub/a%20b.png", **options) == (b"local", [])
    for name in ("../secret.png", "%2e%2e/secret.png", "/../secret.png", "link.png", "sub", "missing.png", ""):
        refused(f"/data/local-files/?d={name}", "has no such picture", **options)
    refused(f"/data/local-files/?d={tmp_path}/secret.png", "has no such picture", **options)
    refused("/data/local-files/?d=a%00b.png", "cannot be read", **options)
    refused("/data/local-files/?d=large.png", "larger than 1000 bytes", 413, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_studio_url": "studio:8080"}, "--label-studio-url must be an address such as"),
        ({"label_studio_url": "http://user@studio"}, "--label-studio-url must be an address such as"),
        ({"label_studio_hosts": ("https://a.example",)}, "--label-studio-hosts takes names"),
        ({"label_studio_hosts": ("*",)}, "--label-studio-hosts takes names"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LabelStudioOptions(**options)
