"""The SSH host behaves as a real one."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest

from lab.estate import Lab
from lab.place import runner

Wait = Callable[[float, Callable[[], object]], None]


async def connect(lab: Lab, **changed: object) -> asyncssh.SSHClientConnection:
    given = {
        "known_hosts": str(lab.place.ssh / "known_hosts"),
        "client_keys": [str(lab.place.ssh / "client_key")],
        "username": runner().name,
    }
    options = asyncssh.SSHClientConnectionOptions(**(given | changed))
    return await asyncssh.connect("127.0.0.1", lab.ports["ssh"], config=None, options=options)


async def run(lab: Lab, command: str, given: bytes = b"") -> asyncssh.SSHCompletedProcess:
    connection = await connect(lab)
    try:
        return await asyncio.wait_for(connection.run(command, input=given, encoding=None), 30)
    finally:
        connection.close()
        await connection.wait_closed()


async def test_commands_run_as_the_runner(lab: Lab) -> None:
    done = await run(lab, "id -un; pwd; echo $HOME; env | grep -c SSH; echo oops >&2; exit 7")
    assert done.stdout == f"{runner().name}\n{lab.place.home}\n{lab.place.home}\n0\n".encode()
    assert (done.stderr, done.exit_status) == (b"oops\n", 7)


async def test_large_output_arrives_whole(lab: Lab) -> None:
    done = await run(lab, "head -c 50000000 /dev/zero; echo end >&2")
    assert isinstance(done.stdout, bytes)
    assert len(done.stdout) == 50_000_000
    assert done.stderr == b"end\n"


async def test_large_input_arrives_whole(lab: Lab) -> None:
    given = os.urandom(1 << 20) * 20
    done = await run(lab, "sha256sum", given)
    assert isinstance(done.stdout, bytes)
    assert done.stdout.split()[0].decode() == hashlib.sha256(given).hexdigest()


async def test_error_output_survives_closed_output(lab: Lab) -> None:
    done = await run(lab, "exec >&-; sleep 0.1; echo late >&2; exit 3")
    assert (done.stdout, done.stderr, done.exit_status) == (b"", b"late\n", 3)


async def test_unread_input_does_not_block(lab: Lab) -> None:
    assert (await run(lab, "exit 4", os.urandom(5_000_000))).exit_status == 4


async def test_signal_reaches_the_whole_group(lab: Lab) -> None:
    async with await connect(lab) as connection:
        process = await connection.create_process("sleep 60 | sleep 60", encoding=None)
        process.stdin.write_eof()
        await asyncio.sleep(0.3)
        process.send_signal("TERM")
        done = await asyncio.wait_for(process.wait(), 5)
    assert done.exit_signal is not None
    assert done.exit_signal[0] == "TERM"


async def test_command_outlives_its_client(lab: Lab, within: Wait) -> None:
    trace = lab.place.home / "outlived"
    async with await connect(lab) as connection:
        await connection.create_process(f"sleep 1; touch {trace}", encoding=None)
        await asyncio.sleep(0.3)
        connection.abort()
    await asyncio.to_thread(within, 5, trace.exists)


async def test_wrong_host_key_is_refused(lab: Lab, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{lab.ports['ssh']} {other}")
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await connect(lab, known_hosts=str(known))


async def test_wrong_client_key_is_refused(lab: Lab) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(lab, client_keys=[asyncssh.generate_private_key("ssh-ed25519")])


async def test_other_user_is_refused(lab: Lab) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(lab, username="somebody-else")


async def test_files_and_forwarding_are_refused(lab: Lab) -> None:
    async with await connect(lab) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.start_sftp_client()
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", lab.ports["postgres"])


async def test_killed_server_leaves_commands_running(fresh_lab: Callable[[], Lab], within: Wait) -> None:
    lab = fresh_lab()
    await asyncio.to_thread(lab.up, load=False)
    trace = lab.place.home / "outlived"
    async with await connect(lab) as connection:
        await connection.create_process(f"sleep 1; touch {trace}", encoding=None)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(lab.break_, "ssh")
    await asyncio.to_thread(within, 5, trace.exists)
