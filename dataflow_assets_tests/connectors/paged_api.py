"""An API in every manner of pages, also such that break their word.

Here: its routes, and reading it. Not here: the tests (`test_http_pages`, `test_http_faults`).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dataflow_assets_tests.connectors.over_http import connect, read_from
from dataflow_assets_tests.services.http_server import Answer, Asked, Server

ROWS = [{"id": number, "v": f"row {number}"} for number in range(25)]
IDS = list(range(25))


class Api:
    """25 rows, at most 10 at a time, in every manner of pages."""

    def __init__(self) -> None:
        self.rows, self.most, self.server, self.steps = ROWS, 10, Server(self.route), 0

    def route(self, asked: Asked) -> Answer:
        kind = asked.path.rpartition("/")[2]
        found: Answer = getattr(self, kind)(asked)
        self.steps += 1
        return found

    def cut(self, start: int, size: int | None = None) -> list[dict[str, Any]]:
        return self.rows[start : start + min(size or self.most, self.most)]

    def page(self, asked: Asked) -> Answer:
        return Answer({"items": self.cut((int(asked.one("page")) - 1) * self.most), "total": len(self.rows)})

    def offset(self, asked: Asked) -> Answer:
        found = self.cut(int(asked.one("offset")), int(asked.one("limit", "10")))
        return Answer({"items": found}, headers={"X-Total-Count": str(len(self.rows))})

    def cursor(self, asked: Asked) -> Answer:
        given = asked.json.get("after") if asked.method == "POST" else asked.one("cursor")
        start = int(str(given or "c0")[1:])
        more = start + self.most < len(self.rows)
        return Answer({"items": self.cut(start), "meta": {"next": f"c{start + self.most}"} if more else {}})

    def link(self, asked: Asked) -> Answer:
        start = int(asked.one("from", "0"))
        links = [f'<{self.server.url}/api/link?from=0&q=a,b>; rel="first"']
        if start + self.most < len(self.rows):
            links.append(f'<{self.server.url}/api/link?from={start + self.most}&q=a,b>; title="x"; rel="next last"')
        return Answer({"items": self.cut(start)}, headers={"Link": ", ".join(links)})

    def url(self, asked: Asked) -> Answer:
        start = int(asked.one("from", "0"))
        following = f"/api/url?from={start + self.most}" if start + self.most < len(self.rows) else None
        return Answer({"items": self.cut(start), "next": following})

    def ignorant(self, asked: Asked) -> Answer:
        """Knows no pages: always the first rows."""
        return Answer({"items": self.cut(0)})

    def circle(self, asked: Asked) -> Answer:
        """Leads back to where it began."""
        return Answer({"items": self.cut(0), "next": "/api/circle?again"})

    def shifting(self, asked: Asked) -> Answer:
        """A row is added in front after the first page."""
        rows = self.rows if self.steps == 0 else [{"id": -1, "v": "new"}, *self.rows]
        start = int(asked.one("offset"))
        return Answer({"items": rows[start : start + 10], "total": len(rows)})

    def shrinking(self, asked: Asked) -> Answer:
        """Says that there are more rows than it hands out."""
        return Answer({"items": self.cut(int(asked.one("offset"))), "total": len(self.rows) + 1})


def read(api: Api, path: str, pagination: dict[str, Any], **options: Any) -> pa.Table:
    """What a source reads of one of the API's manners."""
    keys = options.pop("connection", {})
    return read_from(connect(api.server, **keys), path=path, rows="items", pagination=pagination, **options)


def params(api: Api, name: str) -> list[str]:
    return [asked.one(name) for asked in api.server.log]
