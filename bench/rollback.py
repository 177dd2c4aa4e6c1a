"""Rolling the configuration of many hosts back, beside ansible-core doing the same change of a file and a service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import yaml
from temporalio.client import Client

from bench import fleet
from bench.restore import worker
from lab.place import runner
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.models import Decision
from recovery.report import Report
from recovery.settings import Settings

HOSTS = int(os.environ.get("BENCH_HOSTS", "200"))
ROUNDS = 2
FIRST = 30000
FORKS = 50
"""Hosts at a time, for both."""


async def measure() -> dict[str, float]:
    """Return seconds and CPU seconds of both, of the whole machine, interleaved; people are left out."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    folder.chmod(0o755)
    try:
        with _servers(folder):
            good = _estate(folder)
            _playbook(folder)
            variables = {"RECOVERY_STATE": str(folder / "state"), "RECOVERY_CATALOGS": str(folder / "catalogs")}
            settings = Settings.from_environment({**os.environ, **variables})
            async with Keeper(settings) as endpoint:
                return await _rounds(await connect(settings, endpoint), folder, good, variables)
    finally:
        shutil.rmtree(folder)


async def _rounds(client: Client, folder: Path, good: str, variables: dict[str, str]) -> dict[str, float]:
    ours, theirs = [], []
    working = worker(variables)
    try:
        for turn in range(ROUNDS + 1):
            _reset(folder)
            one = await _engine(client, good)
            _proven(folder)
            _reset(folder)
            other = await asyncio.to_thread(_ansible, folder)
            _proven(folder)
            if turn:  # the first round warms up
                ours.append(one)
                theirs.append(other)
    finally:
        working.terminate()
        working.wait()
    seconds, cpu = (median(one[i] for one in ours) for i in (0, 1))
    their_seconds, their_cpu = (median(one[i] for one in theirs) for i in (0, 1))
    return {
        "hosts": HOSTS,
        "ansible-core, s": round(their_seconds, 2),
        "ansible-core, CPU s": round(their_cpu, 2),
        "rollback, s": round(seconds, 2),
        "rollback, CPU s": round(cpu, 2),
        "times faster (goal: at least 5)": round(their_seconds / seconds, 2),
        "times less CPU": round(their_cpu / cpu, 2),
    }


@contextlib.contextmanager
def _servers(folder: Path) -> Iterator[None]:
    fleet.make(folder, FIRST, HOSTS)
    process = subprocess.Popen([sys.executable, "-m", "bench.fleet", str(folder), str(FIRST), str(HOSTS)])
    try:
        while not (folder / "ready").exists():
            if process.poll() is not None:
                raise RuntimeError("the SSH servers do not start")
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def _git(folder: Path, *words: str, text: str = "") -> str:
    who = {f"GIT_{role}_{field}": "bench@localhost" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", f"--git-dir={folder}/shop.git", *words], input=text, env={**os.environ, **who}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def _estate(folder: Path) -> str:
    """Write the repository and the catalog; return the good revision."""
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", folder / "shop.git"], check=True)
    commits: list[str] = []
    for content in ("works\n", "broken\n"):
        blob = _git(folder, "hash-object", "-w", "--stdin", text=content)
        tree = _git(folder, "mktree", text=f"100644 blob {blob}\tapp.conf\n")
        parent = [word for commit in commits[-1:] for word in ("-p", commit)]
        commits.append(_git(folder, "commit-tree", tree, *parent, "-m", content))
    _git(folder, "update-ref", "refs/heads/bad", commits[1])
    ssh = folder / "ssh"
    host = {"user": runner().name, "known_hosts": str(ssh / "known_hosts"), "key": str(ssh / "client_key")}
    places = [fleet.place(folder, number) for number in range(HOSTS)]
    estate = {
        "title": "A fleet", "sites": {"here": {"title": "here"}}, "tiers": {"gold": {"rto": "PT1H", "rpo": "PT5S"}},
        "people": {"bob": {"roles": ["dba"]}},
        "hosts": {
            at.site: {"site": "here", "address": "127.0.0.1", "port": FIRST + n, "jobs": str(at.jobs), **host}
            for n, at in enumerate(places)
        },
        "configurations": {
            "shop": {
                "repository": str(folder / "shop.git"), "tier": "gold",
                "files": {
                    at.site: {
                        "hosts": [at.site], "to": f"{at.folder}/conf", "reload": _reload(at.folder),
                        "health": f"grep -q works {at.folder}/loaded",
                    }
                    for at in places
                },
            }
        },
    }  # fmt: skip
    gate = {"roles": ["dba"], "within": "PT1H"}
    runbook = {
        "title": "Roll back", "version": "1", "procedure": "ConfigurationRollback", "systems": ["shop"], "why": "bench",
        "parameters": {"watch": "PT0S", "settle": "PT5S"}, "gates": {"roll back": gate, "keep what is not well": gate},
    }  # fmt: skip
    (folder / "catalogs" / "fleet").mkdir(parents=True)
    (folder / "catalogs" / "fleet" / "estate.yaml").write_text(yaml.safe_dump(estate, sort_keys=False))
    (folder / "catalogs" / "fleet" / "back.yaml").write_text(yaml.safe_dump(runbook))
    return commits[0]


def _reload(folder: Path) -> str:
    return f"cat {folder}/conf/app.conf >{folder}/loaded"


def _reset(folder: Path) -> None:
    """Have every host, and the branch, as the bad deployment left them."""
    _git(folder, "update-ref", "refs/heads/main", _git(folder, "rev-parse", "bad"))
    for at in (fleet.place(folder, number) for number in range(HOSTS)):
        for path in (at.folder / "conf" / "app.conf", at.folder / "loaded"):
            path.write_text("broken\n")
            runner().own(path)
        shutil.rmtree(at.jobs / ".configurations", ignore_errors=True)


def _proven(folder: Path) -> None:
    for at in (fleet.place(folder, number) for number in range(HOSTS)):
        if (at.folder / "conf" / "app.conf").read_text() != "works\n" or (
            at.folder / "loaded"
        ).read_text() != "works\n":
            raise RuntimeError(f"{at.site} was not rolled back")


def _busy() -> float:
    """Return the seconds that all processors of this machine were at work."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(int(fields[i]) for i in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")


async def _engine(client: Client, good: str) -> tuple[float, float]:
    given = {"runbook": "fleet/back", "reason": "bench", "parameters": {"revision": good}}
    began, busy = time.monotonic(), _busy()
    handle = await client.start_workflow(
        "ConfigurationRollback", given, id="fleet/shop", task_queue="recovery", result_type=Report
    )
    while not (gates := (await handle.query("status", result_type=Report)).gates):
        await asyncio.sleep(0.1)
    decision = Decision(gate=gates[0].gate, by="bob", plan=gates[0].plan, evidence=gates[0].evidence)
    await handle.execute_update("decide", decision)
    async with asyncio.timeout(600):
        report: Report = await handle.result()
    if report.outcome != "recovered":
        raise RuntimeError(report.failure)
    return time.monotonic() - began - float(report.clock.people), _busy() - busy


def _playbook(folder: Path) -> None:
    hosts = {
        at.site: {"ansible_port": FIRST + n, "base": str(at.folder)}
        for n, at in enumerate(fleet.place(folder, number) for number in range(HOSTS))
    }
    reached = {
        "ansible_host": "127.0.0.1", "ansible_user": runner().name, "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": f"{folder}/ssh/client_key", "ansible_ssh_transfer_method": "piped",
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder}/ssh/known_hosts",
    }  # fmt: skip
    (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": reached}}))
    (folder / "app.conf").write_text("works\n")
    play = {
        "hosts": "all", "gather_facts": False,
        "tasks": [
            {"copy": {"src": f"{folder}/app.conf", "dest": "{{ base }}/conf/app.conf"}, "notify": "reload"},
            {"meta": "flush_handlers"},
            {"command": "grep -q works {{ base }}/loaded", "changed_when": False},
        ],
        "handlers": [{"name": "reload", "shell": "cat {{ base }}/conf/app.conf >{{ base }}/loaded"}],
    }  # fmt: skip
    (folder / "play.yaml").write_text(yaml.safe_dump([play]))


def _ansible(folder: Path) -> tuple[float, float]:
    variables = {
        "ANSIBLE_PIPELINING": "1", "ANSIBLE_FORKS": str(FORKS), "ANSIBLE_HOST_KEY_CHECKING": "1", "HOME": str(folder),
        "ANSIBLE_LOCAL_TEMP": f"{folder}/tmp", "ANSIBLE_REMOTE_TEMP": "/tmp", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.json", "play.yaml"]
    began, busy = time.monotonic(), _busy()
    done = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[:2000] + done.stderr[-1000:])
    return time.monotonic() - began, _busy() - busy
