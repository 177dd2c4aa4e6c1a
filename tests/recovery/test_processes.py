"""A pid is not a process: identity decides."""

import os
import signal
import socket
import subprocess
from dataclasses import replace

from recovery import processes
from recovery.processes import Process


def own() -> Process:
    found = processes.identify(os.getpid())
    assert found
    return found


def test_living_process_is_identified() -> None:
    assert processes.alive(own())


def test_recycled_pid_is_not_alive() -> None:
    assert not processes.alive(replace(own(), started="another-boot/1"))


def test_recycled_pid_gets_no_signal() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        stale = Process(child.pid, own().started)
        assert not processes.send(stale, signal.SIGKILL)
        assert child.poll() is None
        child.kill()


def test_impossible_pids_are_nobody() -> None:
    assert [processes.identify(pid) for pid in (-1, 0, 2**31 - 1)] == [None, None, None]


async def test_stubborn_process_is_killed() -> None:
    command = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        process = processes.identify(child.pid)
        assert process
        await processes.stop(process, patience=0.3)
        assert not processes.alive(process)


def test_listener_is_told_from_strangers() -> None:
    stranger = processes.identify(os.getppid())
    assert stranger
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert processes.listens(own(), port)
        assert not processes.listens(stranger, port)
