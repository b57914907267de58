"""Dockerfile and compose file: in step with the project, closed where they should be, and complete."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")

from hf_maskadapter import __version__  # noqa: E402
from hf_maskadapter.cli import serve  # noqa: E402
from hf_maskadapter.cli.options import parse_command  # noqa: E402
from hf_maskadapter.serving.label_studio_options import KEY_VARIABLE, URL_VARIABLE  # noqa: E402
from hf_maskadapter.serving.limits import RequestLimits  # noqa: E402
from hf_maskadapter.serving.middleware import OPEN_PATHS  # noqa: E402
from hf_maskadapter.serving.running import API_KEY_VARIABLE  # noqa: E402

PROJECT = Path(__file__).parents[2]
INSTRUCTIONS = [
    re.split(r"\s+", line, maxsplit=1)
    for line in re.sub(
        r"\\\n", " ", "\n".join(re.findall(r"^(?!#).+", (PROJECT / "Dockerfile").read_text(), re.MULTILINE))
    ).splitlines()
]
COMPOSE = yaml.safe_load((PROJECT / "compose.yaml").read_text())
SERVICE = COMPOSE["services"]["maskadapter"]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def of(keyword: str) -> list[str]:
    """The arguments of all instructions of a kind."""
    return [arguments for word, arguments in INSTRUCTIONS if word == keyword]


def words(keyword: str) -> list[str]:
    """The only instruction of a kind, which is in the form of a JSON list."""
    (arguments,) = of(keyword)
    return yaml.safe_load(arguments)


def environment() -> dict[str, str]:
    return dict(part.split("=", 1) for arguments in of("ENV") for part in shlex.split(arguments))


def test_python_and_the_extra_are_the_projects():
    version = re.search(r"python:(\d+)\.(\d+)-slim", of("FROM")[0])
    assert f"{version[1]}.{version[2]}" in PYPROJECT["project"]["requires-python"]
    assert {line.split(" ")[0] for line in of("FROM")} == {of("FROM")[0].split(" ")[0]}
    (install,) = [command for command in of("RUN") if "pip install" in command]
    extras = re.search(r"-c constraints\.txt '\.\[(\w+)\]'", install)[1]
    assert extras in PYPROJECT["project"]["optional-dependencies"]


def test_what_is_copied_is_all_that_the_build_reads_and_nothing_else_is_sent():
    copied = {name.removeprefix("./") for line in of("COPY") if "--from" not in line for name in line.split()[:-1]}
    assert all((PROJECT / name).exists() for name in copied)
    read = {"pyproject.toml", PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"], "src"}
    assert read < copied
    ignored = (PROJECT / ".dockerignore").read_text().split("\n")
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_it_runs_as_nobody_in_particular_and_writes_models_to_the_volume_alone():
    (user,) = of("USER")
    assert re.fullmatch(r"([1-9]\d+):\1", user)
    order = [word for word, _ in INSTRUCTIONS]
    assert order.index("USER") < order.index("ENTRYPOINT")
    (volume,) = of("VOLUME")
    assert environment()["HF_HOME"].startswith(f"{volume}/")
    assert environment()["MASKADAPTER_CACHE"].startswith(f"{volume}/")
    (mounted,) = SERVICE["volumes"]
    assert mounted.split(":")[0] in COMPOSE["volumes"]
    assert mounted.split(":")[1] == volume
    assert SERVICE["read_only"] is True
    assert SERVICE["tmpfs"] == ["/tmp"]
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("source", ["Dockerfile", "compose.yaml"])
def test_the_command_is_one_that_serve_takes(source):
    command = words("CMD") if source == "Dockerfile" else SERVICE["command"]
    command = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in command]
    assert words("ENTRYPOINT") == ["maskadapter"]
    _, options = parse_command([serve.COMMAND], command, __version__, "maskadapter")
    assert (options.address.host, str(options.address.port)) == ("0.0.0.0", of("EXPOSE")[0])


def test_health_is_asked_at_the_port_and_path_that_need_no_key():
    (check,) = of("HEALTHCHECK")
    address = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)'", check)
    assert address[1] == of("EXPOSE")[0]
    assert address[2] in OPEN_PATHS
    script = yaml.safe_load(check.split("CMD ", 1)[1])
    assert script[:2] == ["python", "-c"]
    compile(script[2], "HEALTHCHECK", "exec")


def test_the_composed_service_needs_a_key_and_is_reached_from_this_machine_alone():
    assert set(SERVICE["environment"]) == {API_KEY_VARIABLE, KEY_VARIABLE, URL_VARIABLE}
    assert SERVICE["environment"][API_KEY_VARIABLE].startswith(f"${{{API_KEY_VARIABLE}:?")
    assert SERVICE["ports"] == [f"127.0.0.1:{of('EXPOSE')[0]}:{of('EXPOSE')[0]}"]


def test_it_is_given_the_time_to_answer_what_it_accepted():
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert int(SERVICE["stop_grace_period"].removesuffix("s")) > RequestLimits().time_limit + 5
