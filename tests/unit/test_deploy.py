"""The containers, as far as they can be held to their word without an engine: schema, paths, settings, ports, users."""

import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from service.__main__ import app
from service.settings import Settings, load

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"].startswith("retrue:")}
FOREIGN = {name: one for name, one in SERVICES.items() if name not in OURS}
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
GIVEN = {"POSTGRES_PASSWORD": "pw", "GRAFANA_ADMIN_PASSWORD": "pw"}
"""What a person has to set."""
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def filled(text: str) -> str:
    """Return `text` with its variables as they are where a person has set no more than what must be."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        assert kind is not None, f"{name} has neither a default nor a word on what to set"
        return GIVEN[name] if kind == ":?" else rest

    return _VARIABLE.sub(value, text)


def test_it_is_what_the_compose_specification_calls_a_compose_file() -> None:
    schema = json.loads((ROOT / "tests" / "schemas" / "compose-spec.json").read_text())
    validator = jsonschema_rs.validator_for(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    assert list(validator.iter_errors({**COMPOSE, "services": {"x": {"imagine": "y"}}})) != []


def test_there_are_two_apis_a_controller_and_what_stands_around_them() -> None:
    assert {"api-1", "api-2", "controller", "postgres", "prometheus", "alertmanager", "grafana"} <= set(SERVICES)
    assert [name for name, one in SERVICES.items() if "profiles" in one] == ["demo"]
    assert SERVICES["demo"]["profiles"] == ["demo"]


def test_what_a_service_waits_for_is_there_and_says_when_it_is_well() -> None:
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            other = SERVICES[name]
            if how["condition"] == "service_healthy":
                assert other["healthcheck"]["test"][0] == "CMD"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert other["restart"] != "unless-stopped"


def test_every_path_that_is_mounted_exists_and_every_volume_is_declared() -> None:
    used = set()
    for name, service in SERVICES.items():
        for mount in service.get("volumes", ()):
            source, target, *mode = mount.split(":")
            assert target.startswith("/")
            if not source.startswith("."):
                used.add(source)
                continue
            path = source.removeprefix("./")
            assert (ROOT / path).exists(), f"{name} mounts {path}, which is not there"
            assert mode == ["ro"], f"{name} could write to {path}"
    assert used == set(COMPOSE["volumes"])


def test_no_two_containers_share_a_home_and_all_share_lake_artifacts_and_evidence() -> None:
    homes = [mount.split(":")[0] for one in OURS.values() for mount in one["volumes"] if mount.endswith("/lib/retrue")]
    assert sorted(homes) == ["api-1", "api-2"]  # the others keep nothing: theirs is in memory
    for name in ("api-1", "api-2", "controller"):
        shared = {mount for mount in OURS[name]["volumes"] if mount.startswith(("lake:", "artifacts:", "reports:"))}
        assert shared == {f"{part}:/var/lib/retrue/{part}" for part in ("lake", "artifacts", "reports")}
    assert {path.name for path in (Settings().lake, Settings().artifacts, Settings().reports)} == {
        "lake", "artifacts", "reports"
    }  # fmt: skip
    for name in ("controller", "keys", "demo"):
        assert any(mount.startswith("/var/lib/retrue:") for mount in OURS[name]["tmpfs"])


@pytest.mark.parametrize("name", list(OURS))
def test_the_settings_of_our_containers_are_settings(name: str) -> None:
    given = {key: filled(str(value)) for key, value in OURS[name].get("environment", {}).items()}
    image = dict(re.findall(r"(RETRUE_\w+)=(\S+)", DOCKERFILE))
    settings = load(environ={**image, **given}, env_file=Path("no-such.env"))
    assert str(settings.home) == "/var/lib/retrue"
    assert settings.log_format == "json"
    assert all(key.startswith("RETRUE_") for key in given)


def test_who_is_reached_from_outside_listens_where_its_port_is_published_and_checked() -> None:
    for name, inside in (("api-1", "8080"), ("api-2", "8080")):
        service = SERVICES[name]
        assert (service["environment"]["RETRUE_PORT"], service["environment"]["RETRUE_HOST"]) == (inside, "0.0.0.0")  # noqa: S104
        assert service["ports"][0].endswith(f":{inside}")
        assert f":{inside}/" in service["healthcheck"]["test"][-1]
    controller = SERVICES["controller"]
    assert f":{controller['environment']['RETRUE_CONTROLLER_PORT']}/" in controller["healthcheck"]["test"][-1]
    outside = [filled(port) for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in outside), "nobody but this machine, until a person says so"
    assert len({port.split(":")[1] for port in outside}) == len(outside)


@pytest.mark.parametrize("name", list(SERVICES))
def test_every_container_is_nobody_special_writes_nowhere_but_where_it_must_and_gains_no_rights(name: str) -> None:
    service = SERVICES[name]
    user = service["user"].split(":")[0]
    assert user.isdecimal()
    assert int(user) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert not any("docker.sock" in mount for mount in service.get("volumes", ()))


@pytest.mark.parametrize("name", list(SERVICES))
def test_every_image_is_pinned_and_every_container_that_stays_is_looked_after(name: str) -> None:
    service = SERVICES[name]
    _, _, tag = service["image"].partition(":")
    assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?", tag), f"{service['image']} is no fixed version"
    if service["restart"] == "unless-stopped":
        assert service["healthcheck"]["test"][1] in {"python", "pg_isready", "wget"}


def test_our_images_tag_is_the_release() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (release,) = re.findall(r'^version = "(.+)"$', project, re.M)
    assert {one["image"] for one in OURS.values()} == {f"retrue:{release}"}


def test_our_commands_are_commands() -> None:
    known = {command.name or str(getattr(command.callback, "__name__", "")) for command in app.registered_commands}
    for name in ("api-1", "api-2", "controller"):
        assert set(OURS[name]["command"]) <= known
        assert "entrypoint" not in OURS[name]
    assert 'ENTRYPOINT ["retrue"]' in DOCKERFILE
    assert "replay" in known
    assert "retrue replay electricity" in OURS["demo"]["command"][-1]
    assert (ROOT / "models" / "electricity.py").exists()


def test_no_secret_is_written_down_in_it() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for line in re.findall(r".*(?:PASSWORD|SECRET).*", text):
        for value in re.findall(r"(?:PASSWORD|SECRET)\w*: (.+)", line):
            assert "${" in value, line


def test_the_image_is_built_of_pinned_bases_and_of_what_is_there_and_let_in() -> None:
    assert {line.split()[1] for line in re.findall(r"^FROM .*", DOCKERFILE, re.M)} == {"python:3.11.13-slim-bookworm"}
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.M):
        *sources, _ = line.split()
        for source in sources:
            path = source.removeprefix("./")
            assert (ROOT / path).exists(), path
            assert any(path == one or path.startswith(f"{one}/") for one in let_in), f"{path} is kept out"
    assert all((ROOT / one).exists() for one in let_in)
    user = re.findall(r"^USER (\S+)", DOCKERFILE, re.M)[-1]
    assert {one["user"] for one in OURS.values()} == {user}
    assert DOCKERFILE.index("USER ") > DOCKERFILE.rindex("RUN ")
    extras = re.findall(r'"\.\[([\w,]+)\]"', DOCKERFILE)[0].split(",")
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras)


def test_the_first_keys_are_made_once_with_the_real_command(tmp_path: Path) -> None:
    script = ROOT / "deploy" / "first-keys.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    keys = tmp_path / "keys"
    keys.mkdir()
    told = tmp_path / "told"
    fake = tmp_path / "bin" / "retrue"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >>{told}\n[ "$2" = create ] && echo "rtr_text_of_$4"\n')
    fake.chmod(0o755)
    for _ in range(2):
        subprocess.run([script, keys], env={"PATH": f"{fake.parent}:/usr/bin:/bin"}, check=True, capture_output=True)
    made = [line for line in told.read_text().splitlines() if line.startswith("keys create")]
    assert made == [
        "keys create --name compose-admin --role admin --reason the first start",
        "keys create --name compose-demo --role predict --role viewer --reason the first start",
    ]
    assert (keys / "admin").read_text() == "rtr_text_of_compose-admin\n"
    assert stat.S_IMODE((keys / "admin").stat().st_mode) == 0o600
    assert sorted(path.name for path in keys.iterdir()) == ["admin", "demo"]


def test_the_health_check_fails_where_nobody_answers() -> None:
    command = [sys.executable, str(ROOT / "deploy" / "healthy.py"), "http://127.0.0.1:1/livez"]
    assert subprocess.run(command, check=False).returncode == 1


def test_alerts_find_a_receiver() -> None:
    found = yaml.safe_load((ROOT / "deploy" / "alertmanager.yml").read_text())
    receivers = {one["name"] for one in found["receivers"]}
    routes = [found["route"], *found["route"]["routes"]]
    assert {one["receiver"] for one in routes} == receivers
    amtool = shutil.which("amtool")
    if amtool is not None:
        subprocess.run([amtool, "check-config", str(ROOT / "deploy" / "alertmanager.yml")], check=True)


def test_prometheus_scrapes_every_process_that_shows_figures_and_knows_alertmanager() -> None:
    path = ROOT / "grafana" / "prometheus" / "prometheus.yml"
    found = yaml.safe_load(path.read_text())
    asked = {
        (name, sd["port"])
        for job in found["scrape_configs"]
        for sd in job.get("dns_sd_configs", ())
        for name in sd["names"]
    }
    assert asked == {("api", 8080), ("controller", 9100)}
    assert SERVICES["api-1"]["networks"] == SERVICES["api-2"]["networks"] == {"default": {"aliases": ["api"]}}
    targets = [
        target
        for manager in found["alerting"]["alertmanagers"]
        for static in manager["static_configs"]
        for target in static["targets"]
    ]
    assert targets == ["alertmanager:9093"]


def test_grafana_finds_its_dashboards_and_prometheus() -> None:
    folder = ROOT / "grafana" / "provisioning"
    mounted = {mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]}
    found = [yaml.safe_load(path.read_text()) for path in sorted(folder.rglob("*.y*ml"))]
    paths = [one["options"]["path"] for file in found for one in file.get("providers", ())]
    assert paths
    assert set(paths) <= mounted
    assert {one["url"] for file in found for one in file.get("datasources", ())} == {"http://prometheus:9090"}
