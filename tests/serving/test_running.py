"""`maskadapter serve` as a command: its address, its key, its end."""

import logging
import signal
import socket
import sys
import threading

import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")

import httpx  # noqa: E402

from hf_maskadapter import cli  # noqa: E402
from hf_maskadapter.serving import running as module  # noqa: E402
from support.commands import assert_one_error  # noqa: E402
from support.service import LABELS, as_file, scene, served, wait_until  # noqa: E402


@pytest.fixture(autouse=True)
def no_model_is_loaded(monkeypatch):
    """The command ends before it would load one."""
    monkeypatch.setattr("hf_maskadapter.cli.serve.load_segmenter", lambda options: pytest.fail("a model was loaded"))


def test_a_port_that_is_taken_is_one_error_before_the_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 2
    assert_one_error(capsys, f"port {port} of 127.0.0.1", "end what uses it, or choose another --port")


def test_an_interface_that_there_is_not_is_one_error(capsys):
    assert cli.main(["serve", "--host", "192.0.2.1", "--port", "0"]) == 2
    captured = capsys.readouterr().err.splitlines()
    assert "192.0.2.1" in captured[-1]
    assert captured[-1].startswith("maskadapter serve: error: ")


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "cannot be read"), ("", "no key"), ("two words", "no key"), ("ключ", "cannot")]
)
def test_a_key_file_without_a_key_is_one_error(tmp_path, capsys, content, sentence):
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    assert cli.main(["serve", "--port", "0", "--api-key-file", str(file)]) == 2
    assert_one_error(capsys, str(file), sentence)


def test_the_key_comes_from_a_file_or_else_from_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text("of-the-file\n")
    monkeypatch.delenv(module.API_KEY_VARIABLE, raising=False)
    assert module.read_key(None) is None
    monkeypatch.setenv(module.API_KEY_VARIABLE, "of-the-environment")
    assert module.read_key(None) == "of-the-environment"
    assert module.read_key(file) == "of-the-file"


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_there_is_not_is_refused(capsys, port):
    with pytest.raises(SystemExit):
        cli.main(["serve", "--port", port])
    assert "--port must lie between 0 and 65535" in capsys.readouterr().err


class StoppedError(Exception):
    pass


@pytest.fixture
def run_without_a_model(monkeypatch):
    """Runs the command up to the server, and returns the service that it would run."""
    made = []

    class Service:
        def __init__(self, segmenter, name, limits, **options):
            made.append((name, limits, options | {"opened": segmenter}))

    def stop(application, service, bound):
        raise StoppedError

    monkeypatch.setattr("hf_maskadapter.cli.serve.load_segmenter", lambda options: options)
    monkeypatch.setattr("hf_maskadapter.serving.service.Service", Service)
    monkeypatch.setattr("hf_maskadapter.serving.application.create_application", lambda *_: None)
    monkeypatch.setattr(module, "run_application", stop)
    monkeypatch.delenv(module.API_KEY_VARIABLE, raising=False)

    def run(*arguments):
        with pytest.raises(StoppedError):
            cli.main(["serve", "--port", "0", *map(str, arguments)])
        return made.pop()

    return run


def test_only_an_open_interface_without_a_key_brings_a_warning(run_without_a_model, tmp_path, capsys, monkeypatch):
    for host in ("127.0.0.1", "localhost"):
        run_without_a_model("--host", host)
    key = tmp_path / "key"
    key.write_text("secret-key")
    assert run_without_a_model("--host", "0.0.0.0", "--api-key-file", key)[2]["api_key"] == "secret-key"
    assert capsys.readouterr().err == ""
    run_without_a_model("--host", "0.0.0.0")
    warning = capsys.readouterr().err
    assert warning.startswith("maskadapter serve: warning: whoever reaches 0.0.0.0 may use this service")
    assert len(warning.splitlines()) == 1


def test_options_reach_the_service_and_a_folder_is_called_by_its_last_name(run_without_a_model, tmp_path):
    folder = tmp_path / "secret" / "my_model"
    folder.mkdir(parents=True)
    options = {"--max-upload-megabytes": 3, "--max-labels": 7, "--batch-size": 2, "--queue": 5, "--time-limit": 9.5}
    name, limits, _ = run_without_a_model("--model", folder, *(word for pair in options.items() for word in pair))
    assert name == "my_model"
    assert limits.request.upload_bytes == 3_000_000
    assert (limits.request.max_labels, limits.request.time_limit) == (7, 9.5)
    assert (limits.queue.batch_size, limits.queue.queue) == (2, 5)
    assert run_without_a_model()[0] == "miniature"


def test_clients_labels_are_kept_on_disk_only_if_that_is_wanted(run_without_a_model):
    assert not run_without_a_model()[2]["opened"].vocabulary_cache
    assert run_without_a_model("--vocabulary-cache")[2]["opened"].vocabulary_cache


def test_a_missing_extra_is_told_with_the_command_that_brings_it(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "hf_maskadapter.serving.application", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert cli.main(["serve", "--port", "0"]) == 2
    assert_one_error(capsys, "fastapi", "pip install 'hf-maskadapter[serve]'")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_server_that_is_stopped_gently_answers_all_that_it_accepted(number, status, word):
    file, answers, refused = as_file(scene(320, 32)), [], []

    def ask():
        while True:
            try:
                answers.append(httpx.post(f"{server.address}/v1/segment", files={"image": file}, data=data, timeout=60))
            except httpx.HTTPError as error:  # it does not listen any more
                refused.append(error)
                return

    data = {"labels": LABELS}
    with served() as server:
        clients = [threading.Thread(target=ask) for _ in range(16)]
        for client in clients:
            client.start()
        wait_until(lambda: len(answers) > 32)
        server.process.send_signal(number)
        for client in clients:
            client.join(60)
        assert server.process.wait(60) == status
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["segments"] for answer in answers)
    log = "".join(server.log)
    assert f"stopped: {len(answers)} requests accepted, {len(answers)} answered" in log
    assert log.splitlines()[-1] == f"maskadapter serve: {word}"
    assert "sand" not in log


def test_the_log_holds_time_level_and_line(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(module.__package__), "handlers", [])
    module._log_to_stderr()
    logging.getLogger(module.__name__).info("listening")
    assert capsys.readouterr().err.endswith(" INFO listening\n")
