"""The composition root: every workflow and activity by name, connected and run. ``python worker.py``"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.worker import Interceptor, Worker

import workflows
from activities import azure, beginning, catalog, databases, history, leases, notifications, ssh
from activities.backups import backups
from activities.cut_over import fence, install, promote
from activities.databases import look_at_database
from activities.director import drained, look_at_director, point
from activities.divergence import export_divergence, look_for_divergence
from activities.dns_director import look_at_record, point_record, resolves, set_ttl
from activities.door import close, first_write_seen, open_doors
from activities.extraction import copy_back, preview
from activities.finding import find_revision
from activities.haproxy import backend_drained, look_at_backend, point_backend
from activities.health import watch_health
from activities.holdings import holdings, unarchived
from activities.host_files import compare_files, put_files
from activities.kill_switch import look_for_kill_switch
from activities.last_proven import last_proven, published
from activities.machines import run_machine
from activities.manifest_compare import compare_manifests
from activities.manifests import apply_manifests
from activities.nodes import drain_nodes, look_at_nodes
from activities.postgres import place, ready, replay
from activities.proofs import compare, verify
from activities.quota import look_at_quota
from activities.redundancy import archive, base_backup
from activities.returning import cluster_returns, returns, store_returns
from activities.revision_commands import tell
from activities.rolling_back import record, roll_back
from activities.rollouts import rolled_out
from activities.rooms import look_for_room
from activities.salvage import salvage
from activities.services import await_ready, run_services
from activities.serving import serves
from activities.session_keeping import keep_sessions
from activities.session_restoring import check_put, forget_before, put_sessions, read_snapshot, see_snapshot
from activities.session_tables import compare_tables, see_database, write_message
from activities.sessions import compare_sessions, see_store, write_canary
from activities.sightings import sight, sight_store
from activities.silences import see_alerts, silence
from activities.site_checks import make_check
from activities.standing import look_at_standing
from activities.statuses import ask_command, ask_url
from activities.store_roles import fence_store, follow_store, promote_store, unfence_store
from activities.stores import caught_up, look_at_store
from activities.switching import follow, forget_role, keep_role, promote_standby, retire
from activities.takeovers import read_record
from activities.traffic_manager import healthy, point_traffic, see_traffic
from activities.workload_looks import await_workload, look_at_workload, sight_workload
from activities.workloads import scale_workload
from recovery.actions import Action, Probe
from recovery.connection import NotReachable, connect
from recovery.embedded import Keeper
from recovery.errors import RecoveryError
from recovery.fallback import UnknownProcedure
from recovery.leasing import SystemLease
from recovery.notification import Notification
from recovery.replay import Mismatch, check_open_runs
from recovery.settings import Settings
from recovery.undoing import Undoing
from workflows.configuration_rollback import ConfigurationRollback
from workflows.data_center_activation import DataCenterActivation
from workflows.database_point_in_time_restore import DatabasePointInTimeRestore
from workflows.failback import Failback
from workflows.fence_watch import FenceWatch
from workflows.restore_verification import RestoreVerification
from workflows.session_recovery import SessionRecovery
from workflows.session_replication_check import SessionReplicationCheck

WORKFLOWS: Sequence[type] = (
    DatabasePointInTimeRestore, DataCenterActivation, Failback, FenceWatch, SessionReplicationCheck,
    SessionRecovery, ConfigurationRollback, RestoreVerification, Undoing, SystemLease, Notification, UnknownProcedure,
)  # fmt: skip
PROBES: Sequence[Probe[Any, Any]] = (
    backups, ready, verify, compare, look_at_standing, first_write_seen, preview, look_at_director, drained, serves,
    look_at_store, caught_up, look_at_database, databases.caught_up, look_for_kill_switch, sight, sight_store,
    returns, store_returns, look_for_divergence, read_record, see_store, write_canary, compare_sessions, ask_command,
    ask_url, see_database, write_message, compare_tables, see_snapshot, check_put,
    find_revision, compare_files, watch_health, compare_manifests, rolled_out,
    holdings, unarchived, last_proven, await_ready, make_check, see_traffic, healthy,
    look_at_backend, backend_drained, look_at_record, resolves, look_at_quota, look_for_room,
    look_at_workload, sight_workload, await_workload, cluster_returns, look_at_nodes, see_alerts,
)  # fmt: skip
ACTIONS: Sequence[Action[Any, Any]] = (
    place, replay, close, salvage, fence, promote, install, archive, open_doors, base_backup,
    copy_back, point, fence_store, unfence_store, promote_store, follow_store, run_services, keep_role, retire,
    promote_standby, follow, forget_role, export_divergence, keep_sessions,
    read_snapshot, put_sessions, forget_before,
    roll_back, put_files, tell, record, apply_manifests, run_machine, point_traffic,
    point_backend, point_record, set_ttl, scale_workload, drain_nodes, silence,
)  # fmt: skip
ACTIVITIES: Sequence[Any] = (
    catalog.load,
    history.read,
    beginning.begin,
    *leases.ALL,
    notifications.targets,
    notifications.send,
    *(activity for step in (*PROBES, *ACTIONS) for activity in step.activities()),
)

ACTIVITIES_AT_ONCE = 1000
"""Nearly all of them wait: for a host, or, as long as a recovery lasts, one for each of its systems (its lease)."""


def worker(client: Client, queue: str, interceptors: Sequence[Interceptor] = ()) -> Worker:
    """Return the worker of this repository; limits are those that temporal's own measurements bear out."""
    return Worker(
        client,
        task_queue=queue,
        workflows=WORKFLOWS,
        activities=ACTIVITIES,
        interceptors=interceptors,
        max_concurrent_activities=ACTIVITIES_AT_ONCE,
        max_cached_workflows=500,
        # A killed worker is noticed at once; the default holds its workflows back for ten seconds.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        graceful_shutdown_timeout=timedelta(seconds=2),
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
    )


def vantage(client: Client, queue: str, interceptors: Sequence[Interceptor] = ()) -> Worker:
    """Return what answers on the queue of a site: what is to be seen, or done, from there and from nowhere else."""
    steps = [activity for step in (*PROBES, *ACTIONS) for activity in step.activities()]
    return Worker(
        client,
        task_queue=queue,
        activities=steps,
        interceptors=interceptors,
        max_concurrent_activities=ACTIVITIES_AT_ONCE,
        graceful_shutdown_timeout=timedelta(seconds=2),
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
    )


async def main(interceptors: Sequence[Interceptor] = ()) -> None:
    """Run until SIGINT or SIGTERM; with the embedded default also keep its server alive."""
    _own_rooms()
    settings = Settings.from_environment()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(Keeper(settings)) if settings.is_embedded() else None
        client = await connect(settings, endpoint)
        await check_open_runs(client, settings.task_queue, WORKFLOWS)
        stack.push_async_callback(ssh.close)
        stack.push_async_callback(azure.close)
        await stack.enter_async_context(published(client))
        queues = [settings.task_queue]
        if settings.site:
            ssh.stand_at(settings.site)
            queues.append(settings.site_queue)
            await stack.enter_async_context(vantage(client, settings.site_queue, interceptors))
        async with worker(client, settings.task_queue, interceptors):
            where = f"Temporal UI {endpoint.ui}" if endpoint else "the configured Temporal"
            print(f"worker: polling queue {', '.join(queues)}; {where}", flush=True)
            await stop.wait()


def _own_rooms() -> None:
    # "workflows" and "activities" are common names: another package of that name must not conduct a recovery.
    if Path(workflows.__file__ or "").resolve().parent.parent != Path(__file__).resolve().parent:
        raise SystemExit("worker: the package 'workflows' that was imported is not this repository's; check PYTHONPATH")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(main())
    except (NotReachable, Mismatch, RecoveryError) as error:
        sys.exit(f"worker: {error}")
