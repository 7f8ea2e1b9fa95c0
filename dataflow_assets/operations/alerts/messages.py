"""A message, before any channel has given it its form.

Here: the record that waits in an outbox, and several of them as one digest. Not here: the words of it (`wording`), its form in a mail,
in Slack, in JSON (the channels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

Tone = Literal["bad", "warning", "good"]
_LISTED = 20


@dataclass(frozen=True)
class Message:
    """What is told, in plain text: nothing in it is markup. `id` is the same when it is sent again."""

    id: str
    event: str
    tone: Tone
    project: str
    pipeline: str
    title: str
    """One line."""
    facts: tuple[tuple[str, str], ...] = ()
    """What, where, since when, how many: a label and one line each."""
    detail: str = ""
    """The error, in as many lines as it has."""
    commands: tuple[str, ...] = ()
    """What to type next."""
    link: str = ""
    """The run in the UI."""
    at: datetime | None = None
    more: tuple[str, ...] = ()
    """Of a digest: the titles of the messages that it stands for."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Message:
        """A message as it was written to an outbox."""
        pairs = tuple((str(label), str(text)) for label, text in document.get("facts", ()))
        at = document.get("at")
        texts = {name: tuple(document.get(name, ())) for name in ("commands", "more")}
        return cls(**{**document, "facts": pairs, "at": datetime.fromisoformat(at) if at else None, **texts})


def digest(messages: Sequence[Message]) -> Message:
    """One message for many: their titles, and whose run to look at first is that of the first."""
    first = messages[0]
    bad = sum(message.tone == "bad" for message in messages)
    pipelines = sorted({message.pipeline for message in messages})
    counts: dict[str, int] = {}
    for message in messages:
        counts[message.event] = counts.get(message.event, 0) + 1
    listed = [message.title for message in messages]
    return replace(
        first,
        id=f"digest-{first.id}-{len(messages)}-{messages[-1].id}",
        event="digest",
        tone="bad" if bad else first.tone,
        pipeline=pipelines[0] if len(pipelines) == 1 else "",
        title=f"{len(messages)} alerts of {first.project}: {', '.join(f'{count} {event}' for event, count in counts.items())}",
        facts=(
            ("Pipelines", ", ".join(pipelines[:_LISTED]) + (f" and {len(pipelines) - _LISTED} more" if len(pipelines) > _LISTED else "")),
        ),
        detail="",
        commands=("dataflow alerts list", "dataflow status"),
        link="",
        more=tuple(listed),
    )
