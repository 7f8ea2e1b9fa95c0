"""Google Play Console reports as a source: `kind: google_play`, the name that DFT's users know.

Google leaves a CSV file for each report, app and month in a private bucket of Cloud Storage. Here: the options and the connector.
Not here: what the reports are (`_google_play_reports`), finding and opening files (`_google_play_files`), the read
(`_google_play_read`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from dataflow_assets.connectors._google_play_reports import REPORTS, Report
from dataflow_assets.connectors._object_stores import StorageOptions, object_path
from dataflow_assets.connectors._source_only import SourceOnly
from dataflow_assets.error_kinds import STATUS_CODES, Codes
from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.spec.base import Model, Names
from dataflow_assets.spec.models import SourceOptions
from dataflow_assets.tables import ReadRequest, SourceFile, TableName

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.storage.objects import ObjectPath

_BUCKET = re.compile(r"(?:gs://)?(?P<bucket>[^/\s]+)(?:/(?P<prefix>.*))?")
_SECTION = re.compile(r"(^|/)(stats(/[a-z_]+)?|acquisition(/[a-z_]+)?|financial-stats(/[a-z_]+)?|reviews|earnings|sales)/?$")
_INVITE = (
    "copy the bucket's name from Play Console > Download reports; invite the service account under Users and permissions with the right to "
    "view app information and download bulk reports, for earnings and sales also to view financial data"
)
_APPS = AliasChoices("package_name", "packages")
Month = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]


class GooglePlayConnection(Model):
    """The bucket of a developer account, and who asks."""

    bucket: str = Field(description="the account's bucket: pubsite_prod_rev_0123..., or gs://pubsite_prod_rev_0123...")
    service_account_file: str | None = Field(
        None, description="a service account's JSON file, relative to the project; default: application default credentials"
    )
    package_name: Names = Field(default_factory=list, validation_alias=_APPS, description="the apps of sources that name none")
    project: str | None = Field(None, description="the Google Cloud project that is billed")
    endpoint_url: str | None = Field(None, description="another address of Cloud Storage: an emulator")
    anonymous: bool = Field(False, description="ask without credentials: emulators")

    @field_validator("bucket")
    @classmethod
    def _bucket_is_one(cls, value: str) -> str:
        if _BUCKET.fullmatch(value) is None:
            raise ValueError("write the bucket as the Console shows it: pubsite_prod_rev_0123456789")
        return value

    @property
    def address(self) -> str:
        """The bucket as an address; the Console's button copies it with the folder of one report, which is left out."""
        found = _BUCKET.fullmatch(self.bucket)
        assert found is not None
        prefix = _SECTION.sub("", (found["prefix"] or "").rstrip("/"))
        return f"gs://{found['bucket']}/{prefix}"


class GooglePlaySource(SourceOptions):
    """Which report, of which apps."""

    report: Literal["installs", "ratings", "crashes", "store_performance", "reviews", "earnings", "sales"] | None = Field(
        None, description="the report, with all of its columns"
    )
    dimension: str | None = Field(
        None,
        description="what a statistic is broken down by: overview, country, device, os_version, app_version, carrier, language, "
        "traffic_source; default: overview, of store_performance country",
    )
    report_type: Literal["financial", "installs"] | None = Field(
        None, description="in place of report: the six columns of DFT's source; default: financial, when there is no report"
    )
    package_name: Names = Field(default_factory=list, validation_alias=_APPS, description="the apps; default: the connection's, else all")
    start_date: Month | None = Field(None, description="without windows: the first month, as 202401; default: the oldest there is")
    end_date: Month | None = Field(None, description="without windows: the last month, as 202403; default: the newest there is")
    missing: Literal["error", "empty"] = Field(
        "error",
        description="what a month without file is, or a day that the newest file does not reach: not there yet, or no rows",
    )
    column_names: Literal["snake_case", "report"] = Field("snake_case", description="daily_user_installs, or as the report writes it")
    column_types: dict[str, str] = Field(
        default_factory=dict, description="column -> int64, decimal(12,2), string, ..., in place of the documented type"
    )

    @field_validator("start_date", "end_date")
    @classmethod
    def _month_is_one(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"20\d\d(0[1-9]|1[0-2])", value):
            raise ValueError("write a month as 202401")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.report is not None and self.report_type is not None:
            raise ValueError("write either report, or report_type for the columns of DFT")
        if self.digest and (self.dimension or self.column_types or self.column_names == "report"):
            raise ValueError("report_type has columns and types of its own; for dimension, column_types and column_names write report")
        known = self.documented.dimensions
        if self.dimension is not None and self.dimension not in known:
            wanted = f"is broken down by {', '.join(known)}" if known else "has no dimension"
            raise ValueError(f"report {self.documented.name} {wanted}")
        if self.start_date and self.end_date and self.start_date > self.end_date:
            raise ValueError("start_date lies after end_date")
        return self

    @property
    def digest(self) -> str | None:
        """Whose six columns are read: financial, installs, or None for a report as it is."""
        return self.report_type or (None if self.report else "financial")

    @property
    def documented(self) -> Report:
        """The report that is read."""
        return REPORTS[self.report or {"installs": "installs"}.get(self.digest or "", "earnings")]

    @property
    def by(self) -> str:
        """The dimension of the files that are read; empty for a report without dimensions."""
        if self.digest == "installs":
            return "country"
        return self.dimension or next(iter(self.documented.dimensions), "")


class Connector(SourceOnly):
    """Reads the monthly reports of a developer account."""

    kind: ClassVar[str] = "google_play"
    capabilities: ClassVar[Capabilities] = Capabilities(exact_types=False)
    error_codes: ClassVar[Codes] = STATUS_CODES
    Connection: ClassVar[type[GooglePlayConnection]] = GooglePlayConnection
    Source: ClassVar[type[GooglePlaySource]] = GooglePlaySource
    example: ClassVar[str] = """\
pipeline_name: installs_by_country
windows: {every: day, begin: 2024-01-01, lag: 4d}
event_time_column: date
steps:
  - id: installs
    type: source
    source_type: google_play
    connection: play
    config:
      report: installs
      dimension: country
      package_name: [com.example.shop, com.example.till]
      columns: [date, package_name, country, daily_user_installs, daily_user_uninstalls, active_device_installs]
  - id: lake
    type: endpoint
    endpoint_type: parquet
    depends_on: [installs]
    config: {file_path: lake/installs_by_country/}
"""

    def __init__(self, connection: GooglePlayConnection, context: ConnectionContext) -> None:
        self._options, self._context = connection, context
        self._root: ObjectPath = object_path(connection.address, _storage(connection, context.project_dir))

    def __repr__(self) -> str:
        return f"Google Play reports in {self._root}"

    def probe(self) -> str:
        """List one report: what a reader needs to be allowed."""
        with self._explained():
            self._root.store.probe()
        return f"Google Play reports in {self._root.store.url}"

    def close(self) -> None:
        """Close the client."""
        self._root.store.close()

    def source_table(self, options: GooglePlaySource) -> TableName | None:
        """The report, with its dimension."""
        return TableName(f"{options.documented.name}_{options.by}" if options.by else options.documented.name)

    def source_version(self, options: GooglePlaySource) -> str:
        """Every file of the report with its generation."""
        from dataflow_assets.connectors import _google_play_files

        with self._explained():
            found = _google_play_files.listed(self._root, options.documented, options.by, self._apps(options))
        return repr([(str(file.path), file.mark) for file in found])

    def list_files(self, options: GooglePlaySource, *, marker: str | None = None) -> list[SourceFile]:
        """Every file of the report with its generation."""
        from dataflow_assets.connectors import _google_play_files

        with self._explained():
            found = _google_play_files.listed(self._root, options.documented, options.by, self._apps(options))
        marks = ((file, file.mark or (0, "", 0)) for file in found)
        return [SourceFile(str(file.path), mark[0], str(mark[1])) for file, mark in marks]

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        """Stream the rows of the months that the window touches."""
        from dataflow_assets.connectors import _google_play_read

        apps = self._apps(request.options)
        with _google_play_read.stream(self._root, request, apps=apps, explained=self._explained) as reader:
            yield reader

    def _apps(self, options: GooglePlaySource) -> tuple[str, ...]:
        return tuple(dict.fromkeys(options.package_name or self._options.package_name))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A refusal of Cloud Storage, with what to do in the Play Console."""
        try:
            yield
        except ConnectionFailed as error:
            if error.transient:
                raise
            raise ConnectionFailed(f"connection {self._context.name!r}: {error.message}", hint=_INVITE, transient=False) from error


def _storage(connection: GooglePlayConnection, folder: Path) -> StorageOptions:
    file = connection.service_account_file
    return StorageOptions(
        service_account_file=str(folder / file) if file else None,
        project=connection.project,
        endpoint_url=connection.endpoint_url,
        anonymous=connection.anonymous,
    )
