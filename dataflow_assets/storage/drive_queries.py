"""The questions that people ask the drive table in SQL, written for each database.

Here: the queries of the Drive system's README, and what a database writes differently (`QueryForms`). Not here: asking them; they are
for whoever has a client, a dashboard or a monitor: `dataflow history queries` prints them, docs/history.md shows them.
"""

# ruff: noqa: S608 - the table's name is quoted where it is not plain

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class QueryForms:
    """How a database reads JSON and reckons with time; `{column}`, `{key}`, `{hours}` and `{moment}` are filled in."""

    text: str
    number: str
    ago: str
    hours_since: str
    moment: str = "{moment}"
    """A column of instants as something that can be compared."""


FORMS: Mapping[str, QueryForms] = {
    "snowflake": QueryForms(
        "{column}:{key}::string",
        "{column}:{key}::number",
        "DATEADD(hour, -{hours}, CURRENT_TIMESTAMP())",
        "DATEDIFF(hour, {moment}, CURRENT_TIMESTAMP())",
    ),
    "postgres": QueryForms(
        "{column} ->> '{key}'",
        "({column} ->> '{key}')::numeric",
        "now() - interval '{hours} hours'",
        "round(extract(epoch FROM now() - {moment}) / 3600)",
    ),
    "mysql": QueryForms(
        "json_unquote(json_extract({column}, '$.{key}'))",
        "cast(json_unquote(json_extract({column}, '$.{key}')) AS decimal(18, 3))",
        "utc_timestamp() - INTERVAL {hours} HOUR",
        "timestampdiff(HOUR, {moment}, utc_timestamp())",
    ),
    "duckdb": QueryForms(
        "{column} ->> '$.{key}'",
        "({column} ->> '$.{key}')::DOUBLE",
        "now() - INTERVAL {hours} HOUR",
        "date_diff('hour', {moment}, now())",
    ),
    "sqlite": QueryForms(
        "json_extract({column}, '$.{key}')",
        "json_extract({column}, '$.{key}')",
        "datetime('now', '-{hours} hours')",
        "round((julianday('now') - julianday({moment})) * 24)",
        "datetime({moment})",
    ),
    "bigquery": QueryForms(
        "json_value({column}, '$.{key}')",
        "cast(json_value({column}, '$.{key}') AS FLOAT64)",
        "timestamp_sub(current_timestamp(), INTERVAL {hours} HOUR)",
        "timestamp_diff(current_timestamp(), {moment}, HOUR)",
    ),
}
"""Kind of connection -> its forms."""

TITLES = {
    "latest_run": "The latest attempt of each pipeline",
    "failed_24h": "What failed in the last 24 hours",
    "failing_phase": "Which phase failed, and why",
    "actual_vs_expected": "How long a phase took, beside how long it should",
    "audit_trail": "The counts of each window",
    "freshness": "Hours since the end of the last window that was loaded",
    "success_rate": "Per cent of the attempts that succeeded",
    "phase_failure_rate": "Per cent of the attempts that failed in each phase",
    "duration_ratio": "Phases that took more than twice as long as they should",
    "count_mismatch": "Windows whose target holds other than its source gave",
    "retry_success": "Per cent of the second and later tries that succeeded",
}


def queries(kind: str, table: str) -> dict[str, str]:
    """Name -> SQL, for a drive table of this address in a database of this kind. Raises KeyError for a kind that has none."""
    forms = FORMS[kind]

    def text(column: str, key: str) -> str:
        return forms.text.format(column=f"{column}_phase", key=key)

    def number(column: str, key: str) -> str:
        return forms.number.format(column=f"{column}_phase", key=key)

    recent = f"{forms.moment.format(moment='created_at')} >= {forms.ago.format(hours=24)}"
    transfer = "source_to_stage_transfer"
    actual, expected = number(transfer, "actual_run_seconds"), number(transfer, "expected_run_seconds")
    if kind == "snowflake":  # NUMBER alone has no digits after the point
        actual, expected = (side.replace("::number", "::number(18, 3)") for side in (actual, expected))
    source, staged, target = (number("audit", key) for key in ("source_count", "stage_count", "target_count"))
    counted = "pipeline_status IN ('SUCCESS', 'FAILED')"
    return {
        "latest_run": f"""\
SELECT pipeline_name, pipeline_status, pipeline_retry_number, query_window_start, query_window_end, pipeline_run_duration, created_at
FROM (SELECT *, row_number() OVER (PARTITION BY pipeline_name ORDER BY created_at DESC) AS place FROM {table}) attempts
WHERE place = 1
ORDER BY pipeline_name""",
        "failed_24h": f"""\
SELECT pipeline_name, query_window_start, phase_failed, error_class, error_message
FROM {table}
WHERE pipeline_status = 'FAILED' AND {recent}
ORDER BY created_at DESC""",
        "failing_phase": f"""\
SELECT pipeline_name, phase_failed, count(*) AS failures, max(error_message) AS an_error
FROM {table}
WHERE pipeline_status = 'FAILED' AND phase_failed IS NOT NULL
GROUP BY pipeline_name, phase_failed
ORDER BY failures DESC""",
        "actual_vs_expected": f"""\
SELECT pipeline_name, query_window_start,
  {text(transfer, "actual_run_duration")} AS actual, {text(transfer, "expected_run_duration")} AS expected
FROM {table}
WHERE pipeline_status = 'SUCCESS'
ORDER BY created_at DESC""",
        "audit_trail": f"""\
SELECT pipeline_name, query_window_start, {text("audit", "status")} AS audit_status,
  {source} AS source_count, {staged} AS stage_count, {target} AS target_count
FROM {table}
WHERE pipeline_status = 'SUCCESS'
ORDER BY query_window_start""",
        "freshness": f"""\
SELECT pipeline_name, max(query_window_end) AS loaded_until, {forms.hours_since.format(moment="max(query_window_end)")} AS hours_ago
FROM {table}
WHERE pipeline_status = 'SUCCESS'
GROUP BY pipeline_name
ORDER BY pipeline_name""",
        "success_rate": f"""\
SELECT pipeline_name, round(100.0 * sum(CASE WHEN pipeline_status = 'SUCCESS' THEN 1 ELSE 0 END) / count(*), 1) AS per_cent
FROM {table}
WHERE {counted}
GROUP BY pipeline_name
ORDER BY pipeline_name""",
        "phase_failure_rate": f"""\
SELECT pipeline_name, phase_failed, round(100.0 * count(*) / max(attempts), 1) AS per_cent
FROM (SELECT pipeline_name, phase_failed, count(*) OVER (PARTITION BY pipeline_name) AS attempts FROM {table} WHERE {counted}) counted
WHERE phase_failed IS NOT NULL
GROUP BY pipeline_name, phase_failed
ORDER BY per_cent DESC""",
        "duration_ratio": f"""\
SELECT pipeline_name, query_window_start, {actual} / {expected} AS ratio
FROM {table}
WHERE {expected} > 0 AND {actual} / {expected} > 2.0
ORDER BY ratio DESC""",
        "count_mismatch": f"""\
SELECT pipeline_name, query_window_start, {source} AS source_count, {target} AS target_count
FROM {table}
WHERE {source} <> {target}
ORDER BY query_window_start""",
        "retry_success": f"""\
SELECT pipeline_name, round(100.0 * sum(CASE WHEN pipeline_status = 'SUCCESS' THEN 1 ELSE 0 END) / count(*), 1) AS per_cent
FROM {table}
WHERE pipeline_retry_number > 0 AND {counted}
GROUP BY pipeline_name
ORDER BY pipeline_name""",
    }
