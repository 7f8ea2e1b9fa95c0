"""Celery as this package sets it up, for whoever sends work and whoever takes it.

Here: the settings that let another worker take up what a killed one left, and the executor that sends steps. Not here: the worker
(`assets.celery_worker`), the launcher of runs (`assets.celery_runs`).

Celery acknowledges a task before it runs it, so a killed worker's work is lost. With `task_acks_late` the broker keeps it: RabbitMQ
gives it to another worker when the connection breaks, Redis when its visibility timeout is over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataflow_assets.assets.instance_settings import BACKEND, BROKER
from dataflow_assets.errors import ConnectionFailed, DataflowError
from dataflow_assets.secrets import mask

if TYPE_CHECKING:
    import dagster as dg

QUEUE = "dagster"
VISIBILITY = "DATAFLOW_CELERY_VISIBILITY_SECONDS"
MOST_RESUMES = "DATAFLOW_CELERY_MAX_RESUMES"
SETTINGS: Mapping[str, Any] = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_track_started": True,
    "worker_prefetch_multiplier": 1,
    # a fresh process for each run: it sees the pipelines as they are now, and its memory goes back to the system
    "worker_max_tasks_per_child": 1,
    "broker_connection_retry_on_startup": True,
    # events are what is asked for; a result is a few numbers
    "result_expires": 86_400,
}


def backend_of(broker: str) -> str:
    """Where results go unless said otherwise: into Redis itself, or back through RabbitMQ to who waits."""
    return broker if broker.startswith(("redis", "sentinel")) else "rpc://"


def transport_options(*, visibility_seconds: float) -> dict[str, Any]:
    """What the broker's client does; all but the first are dagster-celery's."""
    return {"visibility_timeout": visibility_seconds, "max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}


def required(name: str) -> str:
    """A variable that says where the broker is. Raises DataflowError when it is not set."""
    value = os.environ.get(name)
    if not value:
        raise DataflowError(f"{name} is not set", hint=f"e.g. {name}=redis://broker:6379/0 or {name}=pyamqp://user:password@broker:5672//")
    return value


def answering(*, seconds: float) -> list[str]:
    """The names of the workers that answer within this time. Raises ConnectionFailed when the broker does not."""
    from celery import Celery
    from kombu.exceptions import OperationalError

    broker = required(BROKER)
    app = Celery("dagster", broker=broker, set_as_current=False)
    app.conf.update(broker_connection_timeout=seconds, broker_transport_options={"max_retries": 1, "socket_connect_timeout": seconds})
    try:
        replies = app.control.ping(timeout=seconds) or []
    except (OperationalError, OSError) as error:
        raise ConnectionFailed(f"the broker cannot be reached: {mask(str(error))}", hint=f"look at {BROKER}, and at the server") from None
    return sorted(name for reply in replies for name in reply)


def celery_executor() -> dg.ExecutorDefinition:
    """The executor that sends each step to a worker. The addresses are read when a run starts."""
    try:
        from dagster_celery import celery_executor as stock
    except ModuleNotFoundError as error:
        raise DataflowError("executor: celery needs dagster-celery", hint='pip install "dataflow-assets[celery]"') from error

    broker = os.environ.get(BROKER, "")
    backend: str | dict[str, str] = {"env": BACKEND} if os.environ.get(BACKEND) else {"env": BROKER}
    if not os.environ.get(BACKEND) and broker and backend_of(broker) != broker:
        backend = backend_of(broker)
    executor: dg.ExecutorDefinition = stock.configured({"broker": {"env": BROKER}, "backend": backend, "config_source": {}}, name="celery")
    return executor
