"""Out of the outbox: each message once where a channel takes it, again and again with longer waits where it does not.

Here: who is sent what, backoff, digests, giving up. A message is struck off after its channel has taken it: a process that is killed in
between sends it a second time with the same id (at least once), never not at all. Not here: the form of a message (`channels`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dataflow_assets.errors import DataflowError
from dataflow_assets.operations.alerts.channels import MAIL, ChannelFailed, mail_to, open_channel
from dataflow_assets.operations.alerts.memory import Memory, Sent, Waiting
from dataflow_assets.operations.alerts.messages import Message, digest
from dataflow_assets.plan.model import AlertPlan
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.windows import parse_duration

FIRST_WAIT, LONGEST_WAIT = 30.0, 1800.0
MOST_SECONDS, LONGEST_SEND = 20.0, 15.0
"""How long one sweep begins to send, and one message may take; what is left waits for the next. With the 20 s for reading runs, a
sensor's tick stays below the 60 s that it may take."""
_MOST_WAITING = 1000


@dataclass(frozen=True)
class Delivered:
    """What became of the outboxes in one sweep. `waiting`: channel -> how many messages, since when, the last error."""

    sent: tuple[Sent, ...] = ()
    waiting: Mapping[str, Sequence[Waiting]] = ()  # type: ignore[assignment]


def destinations(plan: AlertPlan) -> list[str]:
    """The channels of a pipeline; addresses beside them are one more."""
    return [*plan.channels, *([mail_to(plan.mail_to)] if plan.mail_to else [])]


def enqueue(memory: Memory, messages: Iterable[tuple[Message, Sequence[str]]], *, now: datetime) -> None:
    """Put each message into the outboxes of its channels. One that is there already, by its id, is not put there twice."""
    boxes: dict[str, dict[str, Waiting]] = {}
    for message, channels in messages:
        for channel in channels:
            box = boxes.setdefault(channel, memory.outbox(channel))
            box.setdefault(message.id, Waiting(message, now))
    for channel, box in boxes.items():
        too_many = list(box.values())[:-_MOST_WAITING]
        if too_many:
            memory.keep_sent(_sent(item.message, channel, now=now, error="given up: too many were waiting") for item in too_many)
        memory.keep_outbox(channel, dict(list(box.items())[-_MOST_WAITING:]))


def deliver(project: Project, memory: Memory, *, now: datetime) -> Delivered:
    """Send what is due. A channel that fails keeps none of the others waiting, and never raises."""
    started, sent = time.monotonic(), []
    waiting: dict[str, Sequence[Waiting]] = {}
    for channel in memory.channels():
        box = memory.outbox(channel)
        if time.monotonic() - started < MOST_SECONDS:
            sent += _send_due(project, memory, channel, box, now=now, until=started + MOST_SECONDS)
        if box:
            waiting[channel] = list(box.values())
    return Delivered(tuple(sent), waiting)


def _send_due(project: Project, memory: Memory, channel: str, box: dict[str, Waiting], *, now: datetime, until: float) -> list[Sent]:
    """Send what is due of one channel, a digest where it is much; `box` keeps what is left."""
    done = _given_up(project, channel, box, now=now)
    due = [item for item in box.values() if item.next_try is None or item.next_try <= now]
    whole = [item for item in due if not item.left]
    groups = [whole] if len(whole) > project.model.alerts.digest_above else [[item] for item in whole]
    groups += [[item] for item in due if item.left]
    if done:
        memory.keep_sent(done)
        memory.keep_outbox(channel, box)
    for group in groups:
        if time.monotonic() >= until:
            break
        message = digest([item.message for item in group]) if len(group) > 1 else group[0].message
        error = _send(project, channel, message, only=group[0].left if len(group) == 1 else ())
        for item in group:
            box.pop(item.message.id)
            if error is not None:
                box[item.message.id] = _again(item, error, now=now)
        if error is None:
            done.append(_sent(message, channel, now=now))
            memory.keep_sent(done[-1:])
        memory.keep_outbox(channel, box)
        if error is not None and not (isinstance(error, ChannelFailed) and error.left):
            break  # the next one would fare no better
    return done


def _send(project: Project, channel: str, message: Message, *, only: Sequence[str]) -> DataflowError | None:
    """Send it within a time. A server that answers a byte at a time never runs into a socket's timeout, and would hold up all others."""
    ended: list[DataflowError | None] = []
    sending = threading.Thread(target=lambda: ended.append(_error_of(project, channel, message, only=only)), daemon=True)
    sending.start()
    sending.join(LONGEST_SEND)
    return ended[0] if ended else ChannelFailed(f"the message was not taken within {LONGEST_SEND:g} s", transient=True)


def _error_of(project: Project, channel: str, message: Message, *, only: Sequence[str]) -> DataflowError | None:
    try:
        open_channel(project, channel, only=only).send(message)
    except DataflowError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever a server or its library does, alerts go on
        return DataflowError(f"{type(error).__name__}: {mask(str(error))}")
    return None


def _again(item: Waiting, error: DataflowError, *, now: datetime) -> Waiting:
    """Wait longer each time; longest where trying again is no cure, until somebody mends it."""
    wait = min(FIRST_WAIT * 2.0**item.tries, LONGEST_WAIT) if error.transient else LONGEST_WAIT
    left = (error.left if isinstance(error, ChannelFailed) else ()) or item.left
    return replace(item, tries=item.tries + 1, next_try=now + timedelta(seconds=wait), error=error.message, left=left)


def _given_up(project: Project, channel: str, box: dict[str, Waiting], *, now: datetime) -> list[Sent]:
    """Strike off what was tried for too long, and what is for a channel that the project has no more."""
    patience = parse_duration(project.model.alerts.give_up_after)
    gone = not channel.startswith(MAIL) and channel not in project.model.alerts.channels
    old = [item for item in box.values() if gone or (item.tries and now - item.since >= patience)]
    for item in old:
        del box[item.message.id]
    reason = f"the project has no channel {channel!r} any more"
    return [_sent(item.message, channel, now=now, error=reason if gone else f"given up: {item.error}") for item in old]


def _sent(message: Message, channel: str, *, now: datetime, error: str = "") -> Sent:
    return Sent(message.id, now, channel, message.event, message.pipeline, message.title, error)
