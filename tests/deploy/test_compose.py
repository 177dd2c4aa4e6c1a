"""The Docker deployment: parsed always, judged by docker compose where there is one, bootstrap run for real."""

import ast
import asyncio
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from recovery.attributes import SEARCH_ATTRIBUTES
from recovery.embedded import Keeper
from recovery.server import RETENTION
from tests.running import settings_in

REPOSITORY = Path(__file__).parents[2]
FILE = REPOSITORY / "docker-compose.temporal.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def mounts() -> list[tuple[str, str]]:
    """Return source and target of every mount."""
    words = [text.split(":") for service in SERVICES.values() for text in service.get("volumes", [])]
    return [(word[0], word[1]) for word in words]


def test_ports_are_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_database_is_on_named_volume() -> None:
    sources = {target: source for source, target in mounts()}
    assert sources["/var/lib/postgresql/data"] in COMPOSE["volumes"]


def test_mounted_files_exist() -> None:
    files = [REPOSITORY / source for source, _ in mounts() if source.startswith("./")]
    assert files
    assert all(file.is_file() for file in files)


def test_secrets_come_from_the_environment() -> None:
    secrets = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if any(word in name for word in ("PASSWORD", "PWD", "KEY", "TOKEN", "SECRET"))
    ]
    assert len(secrets) == 3
    assert all(value.startswith("${") and ":?" in value for value in secrets)


def test_images_are_pinned() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    assert all(":" in image and not image.endswith(":latest") for image in images)


def test_bootstrap_names_all_attributes() -> None:
    environ = SERVICES["bootstrap"]["environment"]
    assert dict(word.split("=") for word in environ["SEARCH_ATTRIBUTES"].split()) == SEARCH_ATTRIBUTES
    assert environ["RETENTION"] == f"{RETENTION.days}d"


def test_dynamic_config_raises_poll_rate() -> None:
    found = yaml.safe_load((REPOSITORY / "deploy" / "dynamicconfig.yaml").read_text())
    assert found["history.transferProcessorMaxPollRPS"][0]["value"] == 2000


def test_image_holds_what_the_worker_imports() -> None:
    tree = ast.parse((REPOSITORY / "worker.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    rooms = {module.partition(".")[0] for module in modules}
    rooms = {room for room in rooms if (REPOSITORY / room / "__init__.py").exists()}
    copied = {line.split()[1] for line in (REPOSITORY / "Dockerfile").read_text().splitlines() if "COPY" in line}
    allowed = (REPOSITORY / ".dockerignore").read_text().split()
    assert rooms <= copied
    assert all(f"!{name}" in allowed for name in copied)


def test_docker_compose_accepts_it() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        return  # only the checks above can run here
    command = [docker, "compose", "--file", str(FILE), "config", "--quiet"]
    secret = {"RECOVERY_DB_PASSWORD": "for-this-check-only"}
    done = subprocess.run(command, env={**os.environ, **secret}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True).returncode != 0


async def bootstrap(address: str) -> str:
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **SERVICES["bootstrap"]["environment"],
        "TEMPORAL_ADDRESS": address,
        "TEMPORAL_NAMESPACE": "recoveries",
    }
    script = str(REPOSITORY / "scripts" / "temporal-bootstrap.sh")
    child = await asyncio.create_subprocess_exec(
        "sh", script, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await child.communicate()
    assert child.returncode == 0, output.decode()
    return output.decode()


async def test_bootstrap_runs_twice(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with asyncio.timeout(90), Keeper(settings, attributes={}) as endpoint:
        for _ in range(2):
            assert "namespace recoveries is ready" in await bootstrap(endpoint.address)
        client = await Client.connect(endpoint.address)
        about = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="recoveries"))
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace="recoveries")
        )
    assert about.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=90)
    assert set(listed.custom_attributes) == set(SEARCH_ATTRIBUTES)
