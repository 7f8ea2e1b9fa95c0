"""Messages into a Slack channel, as blocks.

Here: the form, within Slack's limits: 150 characters of a header, 3,000 of a section, 50 blocks; and `&`, `<`, `>` escaped, without which
a row's value could call everybody or show a false link. Not here: what it says (`operations.alerts.wording`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from dataflow_assets.operations.alerts.channels import ChannelFailed
from dataflow_assets.operations.alerts.channels.http import post
from dataflow_assets.operations.alerts.messages import Message
from dataflow_assets.secrets import mask
from dataflow_assets.spec.alerts import SlackChannel as Options

HEADER, SECTION, BLOCKS, FALLBACK = 150, 3000, 50, 4000
_SIGNS = {"bad": "\N{LARGE RED CIRCLE}", "warning": "\N{LARGE YELLOW CIRCLE}", "good": "\N{LARGE GREEN CIRCLE}"}
_MARKS = re.compile(r"`|(?<![^\W_])[*_~]|[*_~](?![^\W_])")
"""What could begin or end bold, italic, struck or code: within a word, as in amount_range, it cannot."""
_ZERO_WIDTH = "\N{ZERO WIDTH SPACE}"


class SlackChannel:
    """An incoming webhook of Slack."""

    def __init__(self, options: Options) -> None:
        self._url = options.webhook_url.get_secret_value()

    def send(self, message: Message) -> None:
        """Post the message. Raises ChannelFailed, also where Slack answers 200 with other words than ok."""
        answer = post(self._url, json.dumps(payload(message)).encode(), {}).strip()
        if answer not in {"", "ok"}:
            raise ChannelFailed(f"Slack answers {mask(answer)[:200]!r}", transient=False)


def payload(message: Message) -> dict[str, Any]:
    """The document that is posted."""
    title = f"{_SIGNS[message.tone]} {message.title}"
    # a header is plain text, in which nothing is markup
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": _cut(title, HEADER), "emoji": False}}]
    blocks += map(_section, _paragraphs(f"*{escaped(label)}:* {escaped(text)}" for label, text in message.facts))
    blocks += map(_section, _paragraphs(f"\N{BULLET} {escaped(line)}" for line in message.more))
    blocks += map(_section, _code(message.detail))
    if message.commands:
        blocks.append(_section("Next:"))
        blocks += map(_section, _code("\n".join(message.commands)))
    if message.link:
        blocks.append(_section(f"<{_address(message.link)}|The run in the Dagster UI>"))
    if len(blocks) > BLOCKS:
        blocks = [*blocks[: BLOCKS - 1], _section("\N{HORIZONTAL ELLIPSIS} cut here: dataflow alerts list shows more")]
    return {"text": _cut(escaped(f"[{message.project}] {title}"), FALLBACK), "blocks": blocks}


def escaped(text: str) -> str:
    """`text` of which Slack takes nothing for a link, a mention, or, at the edges of words, for bold, italics or code."""
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(lambda found: f"{_ZERO_WIDTH}{found[0]}{_ZERO_WIDTH}", plain)


def length(text: str) -> int:
    """Characters as a browser counts them, of which an emoji is two: the stricter way to read Slack's limits."""
    return len(text) + sum(sign > "\uffff" for sign in text)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """The lines, as many together as a section holds."""
    held = ""
    for line in lines:
        line = _cut(line, SECTION)
        if held and length(held) + 1 + length(line) > SECTION:
            yield held
            held = ""
        held = f"{held}\n{line}" if held else line
    if held:
        yield held


def _code(text: str) -> Iterator[str]:
    """Text in blocks of code, in which only the three signs and the end of the block mean anything."""
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if "```" in plain:
        plain = plain.replace("`", f"`{_ZERO_WIDTH}")
    fences = 8
    for part in _paragraphs(piece for line in plain.splitlines() for piece in _pieces(line, SECTION - fences)):
        for piece in _pieces(part, SECTION - fences):
            yield f"```\n{piece}\n```"


def _pieces(text: str, size: int) -> Iterator[str]:
    half = size // 2 if length(text) > len(text) else size
    yield from (text[start : start + half] for start in range(0, len(text), half)) if text else ("",)


def _address(link: str) -> str:
    return link.replace("&", "&amp;").replace("<", "%3C").replace(">", "%3E").replace("|", "%7C")


def _cut(text: str, longest: int) -> str:
    """At most so many characters, and no half of an escaped sign at the end."""
    if length(text) <= longest:
        return text
    kept = text[: longest - 1]
    while length(kept) > longest - 1:
        kept = kept[: -max((length(kept) - longest + 2) // 2, 1)]
    amp = kept.rfind("&", len(kept) - 5)
    return (kept[:amp] if amp >= 0 and ";" not in kept[amp:] else kept) + "\N{HORIZONTAL ELLIPSIS}"
