"""`compose.yaml` and its image, as far as they can be checked without an engine. That their commands work is tested in
test_deployment.py."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import prefect.settings
import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import _auth
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from sqlalchemy.engine import make_url

from tools import install

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = "\n".join(
    path.read_text() for name in ("artifacts", "tasks", "flows") for path in (ROOT / name).rglob("*.py")
)
HUB = "\n".join(Path(module.__file__).read_text() for module in (_auth, constants))
VARIABLES = [(name, key, str(value)) for name, one in SERVICES.items() for key, value in one["environment"].items()]


def lines(instruction: str) -> list[str]:
    return re.findall(rf"^{instruction} (.*)", DOCKERFILE, re.MULTILINE)


def test_services_wait_for_each_other() -> None:
    assert SERVICES.keys() == {"database", "server", "deployments", "worker"}
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            needed = SERVICES[other]
            if how["condition"] == "service_healthy":
                assert needed["healthcheck"]["test"][0] == "CMD", name
            else:  # one that is started again and again never completes
                assert how["condition"] == "service_completed_successfully"
                assert needed["restart"].startswith("on-failure")
    assert SERVICES["worker"]["depends_on"].keys() == {"server", "deployments"}


def test_what_is_kept_lies_in_named_volumes_that_the_user_of_the_image_may_write() -> None:
    mounted = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert {name for name, _ in mounted} == COMPOSE["volumes"].keys() == {"database", "server", "store", "cache"}
    (made,) = re.findall(r"install --directory --owner=codetune (.*)", DOCKERFILE)
    own = {place for name, place in mounted if name != "database"}
    assert own < set(made.split()) and lines("USER") == ["codetune"]
    worker = SERVICES["worker"]["environment"]
    assert {worker["CODETUNE_STORE"], worker["HF_HOME"], SERVICES["server"]["environment"]["PREFECT_HOME"]} == own


def test_only_the_server_is_published_and_on_loopback_only() -> None:
    published = [(name, port) for name, service in SERVICES.items() for port in service.get("ports", [])]
    assert published == [("server", "127.0.0.1:${PORT:-4200}:4200")]
    assert not any("network_mode" in service or "privileged" in service for service in SERVICES.values())
    command = SERVICES["server"]["command"].split()
    assert command[command.index("--port") + 1] == "4200"
    assert "127.0.0.1:4200/api/health" in " ".join(SERVICES["server"]["healthcheck"]["test"])


def test_services_find_each_other() -> None:
    database, server = SERVICES["database"]["environment"], SERVICES["server"]["environment"]
    url = make_url(server["PREFECT_API_DATABASE_CONNECTION_URL"].replace("${POSTGRES_PASSWORD}", "password"))
    assert (url.drivername, url.host, url.port) == ("postgresql+asyncpg", "database", 5432)
    assert (url.username, url.database) == (database["POSTGRES_USER"], database["POSTGRES_DB"])
    for name in ("deployments", "worker"):
        assert SERVICES[name]["environment"]["PREFECT_API_URL"] == "http://server:4200/api"
    assert "0.0.0.0" in SERVICES["server"]["command"]  # within the network of the containers
    assert SERVICES["server"]["hostname"] == "server"  # which it would not take for its own name


def test_no_secret_stands_in_it_and_the_password_must_be_given() -> None:
    secret = [(key, value) for _, key, value in VARIABLES if re.search("PASSWORD|TOKEN|WEBHOOK|SECRET|KEY", key)]
    assert {key for key, _ in secret} == {"POSTGRES_PASSWORD", "HF_TOKEN", "CODETUNE_WEBHOOK"}
    assert all(re.fullmatch(rf"\${{{key}(:-|:\?.+)}}", value) for key, value in secret)
    assert ":?" in SERVICES["database"]["environment"]["POSTGRES_PASSWORD"]
    password = SERVICES["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert password.startswith("codetune:${SERVER_PASSWORD:?")
    told = {SERVICES[name]["environment"]["PREFECT_API_AUTH_STRING"] for name in ("deployments", "worker")}
    assert told == {"codetune:${SERVER_PASSWORD}"}
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize(("service", "key", "value"), VARIABLES)
def test_every_variable_is_known(service: str, key: str, value: str) -> None:
    if key.startswith("PREFECT_"):
        assert hasattr(prefect.settings, key)
    elif key.startswith("CODETUNE_"):
        assert f'"{key}"' in SOURCES
    elif key == "DO_NOT_TRACK":
        assert value == "1"
    elif key.startswith("HF_"):
        assert f'"{key}"' in HUB
    else:
        assert service == "database" and key.startswith("POSTGRES_")


def test_the_worker_has_the_card_and_time_to_write_a_checkpoint() -> None:
    worker = SERVICES["worker"]
    (card,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert card == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert worker["stop_grace_period"] == "2m" and worker["init"] is True


def test_the_image_gets_what_the_project_is_made_of() -> None:
    ignored, *kept = (line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#"))
    names = [line.removeprefix("!") for line in kept if line.startswith("!")]
    assert ignored == "*" and all((ROOT / name).exists() for name in names)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {name.partition("/")[0] for name in [*wheel["packages"], *wheel["force-include"]]} < set(names)
    assert set(" ".join(lines("COPY")).split()) - {".", "./"} < set(names)


def test_the_image_installs_what_the_project_asks_for_in_pinned_versions() -> None:
    (base,) = lines("FROM")
    name, tag = re.split("[:@]", base, maxsplit=2)[:2]
    assert name == "python" and tag.partition("-")[0] in SpecifierSet(PROJECT["requires-python"])
    images = [service["image"] for service in SERVICES.values() if service["image"] != "codetune"]
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", one.partition("@")[2]) for one in [*images, base])
    locked = install.locked(ROOT / "requirements.txt")
    assert {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]} <= locked.keys()
    assert all("==" in text and "--hash=sha256:" in text for text in locked.values())
    installs = [shlex.split(line) for line in re.findall(r"pip install ([^&\n]*)", DOCKERFILE)]
    assert [one[-2:] for one in installs] == [["--requirement", "requirements.txt"], ["--editable", "."]]
    assert "--require-hashes" in installs[0] and {"--no-deps", "--no-build-isolation"} < set(installs[1])


def test_commands_are_those_that_the_image_has() -> None:
    scripts = {*PROJECT["scripts"], "python"}
    commands = [shlex.split(service["command"]) for service in SERVICES.values() if "command" in service]
    assert len(commands) == 3 and all(command[0] in scripts for command in commands)
    for name in scripts:
        assert os.access(Path(sys.executable).with_name(name), os.X_OK)
