"""What the Dagster UI is told about a project and its runs.

Here: the webserver's own application with the real code location, asked over HTTP in this process; queries made from the schema, so that
every field that needs no argument is asked for. Not here: what is looked for in the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
import httpx
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.schema import create_schema
from dagster_webserver.app import create_app_from_workspace_process_context
from graphql import GraphQLInterfaceType, GraphQLNonNull, GraphQLObjectType, GraphQLUnionType, get_named_type

FIELDS = {"workspaceOrError": 4, "repositoriesOrError": 3, "assetsOrError": 3, "assetNodes": 2, "runsOrError": 3, "instance": 4}
"""The fields of the query root that the UI begins with, and how deep to ask."""
_LEFT_OUT = {
    *(f"AssetNode_{name}ByPartition" for name in ("dataVersion", "staleStatus", "staleCauses")),
    *("SolidHandle_stepStats", "AssetMaterializationPlannedEvent_pipelineName", "DaemonHealth_daemonStatus"),
    *("Instance_concurrencyLimit", "ErrorChainLink_message"),
}
"""Fields that fail without the arguments that they call optional."""


@dataclass
class UI:
    """A webserver to ask."""

    app: Any
    schema: Any

    def get(self, path: str) -> bytes:
        """The body of a page."""
        return self._call("GET", path).content

    def ask(self, field: str, *, arguments: str = "", depth: int) -> bytes:
        """Everything below a field of the query root. Fails when the schema has no such field."""
        kind = self.schema.query_type.fields[field].type
        query = f"{{{field}{arguments}{self._below(get_named_type(kind), depth, ())}}}"
        reply = self._call("POST", "/graphql", json={"query": query})
        assert "errors" not in reply.json(), reply.text[:2000]
        return reply.content

    def _call(self, method: str, path: str, **sent: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://ui", timeout=60) as client:
                return await client.request(method, path, **sent)

        return asyncio.run(call())

    def _below(self, kind: Any, depth: int, path: tuple[str, ...]) -> str:
        """The selection of all fields of a type that need no argument, to a depth."""
        if isinstance(kind, GraphQLUnionType | GraphQLInterfaceType):
            parts = [f"... on {one.name}{self._below(one, depth, path)}" for one in self.schema.get_possible_types(kind)]
            return f"{{__typename {' '.join(part for part in parts if part.endswith('}'))}}}"
        if not isinstance(kind, GraphQLObjectType) or depth == 0 or kind.name in path:
            return ""
        fields = []
        for name, item in kind.fields.items():
            if f"{kind.name}_{name}" in _LEFT_OUT or any(isinstance(argument.type, GraphQLNonNull) for argument in item.args.values()):
                continue
            inner = get_named_type(item.type)
            below = self._below(inner, depth - 1, (*path, kind.name))
            if below or not isinstance(inner, GraphQLObjectType | GraphQLUnionType | GraphQLInterfaceType):
                # one name may have several types in the members of a union
                fields.append(f"{kind.name}_{name}: {name}{below}")
        return f"{{{' '.join(fields)}}}" if fields else ""


@contextmanager
def opened(instance: dg.DagsterInstance) -> Iterator[UI]:
    """The webserver of the project that `DATAFLOW_PROJECT` names."""
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="dataflow_assets.definitions"))
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as context:
        app = create_app_from_workspace_process_context(context)
        yield UI(app, create_schema().graphql_schema)
