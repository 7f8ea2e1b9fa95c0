"""What may stand under `anomaly:`.

Here: the options with their refusals, and the settings of the recipe that they come to. Not here: the check of one metric
(`checks._metric`), the recipe (`anomalies`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from dataflow_assets.anomalies.scales import Transform
from dataflow_assets.anomalies.seasons import Calendar, Clock, Season
from dataflow_assets.anomalies.settings import Direction, Settings
from dataflow_assets.checks._measuring import ROW_COUNT, is_additive
from dataflow_assets.protocols import CheckPromise, Severity
from dataflow_assets.spec.base import Model
from dataflow_assets.windows import parse_duration

_GONE = {
    "use_weighted": "leave it out: `training` says how far back the check learns",
    "weights_type": "leave it out: `training` says how far back the check learns",
    "exp_decay_factor": "leave it out: `training` says how far back the check learns",
}
_DIRECTIONS = {"spike": "up", "drop": "down"}
_COUNTS = re.compile(r"^\s*(row_count|distinct_count\s*\(.*\))\s*$", re.IGNORECASE | re.DOTALL)
_SHARES = re.compile(r"^\s*null_share\s*\(.*\)\s*$", re.IGNORECASE | re.DOTALL)
_YEARLY = re.compile(r"^(?P<month>\d{2})-(?P<day>\d{2})$")


def _as_share(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", value)
    if match is None:
        raise ValueError(f"{value!r} is not a share: write 0.05 or 5%")
    return float(match[1]) / (100 if match[2] else 1)


def _as_direction(value: Any) -> Any:
    return _DIRECTIONS.get(value, value) if isinstance(value, str) else value


def _as_kinds(value: Any) -> Any:
    return {"calendar": value} if isinstance(value, list) else value


Share = Annotated[float, Field(ge=0), BeforeValidator(_as_share, json_schema_input_type=float | str)]
Side = Annotated[Literal["both", "up", "down"], BeforeValidator(_as_direction, json_schema_input_type=str)]
Days = Annotated[
    dict[str, list[date | str]],
    BeforeValidator(_as_kinds, json_schema_input_type=dict[str, list[date | str]] | list[date | str]),
]


class AnomalyOptions(Model):
    """What to measure, and when it counts as unusual; see docs/anomalies.md."""

    metric: str = Field(
        ROW_COUNT,
        description="row_count, null_share(column), distinct_count(column), freshness(column), or an aggregate in DuckDB's SQL over the"
        " rows: min, max, avg, sum ...",
    )
    name: str | None = Field(None, description="under which the number is kept in the ledger; default: made from metric")
    by: str | None = Field(None, description="a column: each of its values has a history of its own and is judged too")
    explain_by: str | None = Field(None, description="a column that is only used to say which of its values explains most of a difference")
    top: int = Field(10, ge=1, le=100, description="how many values of that column are told apart; the rest counts together")
    direction: Side = Field("both", description="which side is watched: both, up (or spike), down (or drop)")
    sensitivity: float = Field(
        3.5,
        gt=0,
        validation_alias=AliasChoices("sensitivity", "n_sigma"),
        description="how many standard deviations from the expected are unusual",
    )
    ignore_small_changes: Share = Field(0.05, description="a difference of at most this share of the expected is never unusual; 0.05 or 5%")
    min_change: float = Field(0.0, ge=0, description="a difference of at most this, in the metric's own unit, is never unusual")
    min_samples: int = Field(
        7, ge=2, validation_alias=AliasChoices("min_samples", "min_window_size"), description="windows before which the check only learns"
    )
    training: int | str | None = Field(
        None,
        validation_alias=AliasChoices("training", "window_size"),
        description="how far back it learns: a number of windows, or a duration such as 90d; default: 120 windows, of windows below a day"
        " six weeks",
    )
    transform: Literal["auto", "none", "log1p", "logit"] = Field(
        "auto", description="log1p for counts and sums, logit for shares between 0 and 1; auto chooses"
    )
    season: Literal["auto", "none", "weekday", "day_of_week", "hour_of_day", "hour_of_week", "day_of_month"] = Field(
        "auto", description="which windows are alike; auto finds out"
    )
    calendar: Days = Field(
        default_factory=dict,
        description="days unlike others: a list of dates, or kinds of days with their dates; 2024-12-25, or '12-25' for every year",
    )
    zero_rows: Literal["auto", "fail", "pass"] = Field(
        "auto", description="what a window without rows is; auto fails where three earlier windows or more all had rows"
    )
    severity: Severity = Field(Severity.ERROR, description="warn reports and goes on")
    blocking: bool = Field(False, description="whether an unusual number keeps the window from being published")
    description: str = Field("", description="shown with the check")

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_gone(cls, data: Any) -> Any:
        for key, hint in _GONE.items():
            if isinstance(data, Mapping) and key in data:
                raise ValueError(f"{key} is no longer an option: {hint}")
        return data

    @field_validator("metric")
    @classmethod
    def _metric_is_an_expression(cls, value: str) -> str:
        if not value.strip() or re.match(r"\s*(select|with|from)\b", value, re.IGNORECASE):
            raise ValueError(f"{value!r} is not a metric: write row_count or an aggregate alone, such as avg(price), without SELECT")
        return value

    @field_validator("name")
    @classmethod
    def _name_suits_dagster(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_]+", value):
            raise ValueError(f"{value!r} is not a metric name: use letters, digits and _")
        return value

    @field_validator("training")
    @classmethod
    def _training_is_a_length(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str):
            parse_duration(value)
        elif value is not None and value < 2:
            raise ValueError(f"{value} is too short: at least 2 windows are needed to compare with")
        return value

    @field_validator("calendar")
    @classmethod
    def _calendar_has_days(cls, value: dict[str, list[date | str]]) -> dict[str, list[date | str]]:
        for day in (day for days in value.values() for day in days):
            _ = day if isinstance(day, date) else _day_of(day)
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if isinstance(self.training, int) and self.min_samples > self.training:
            raise ValueError(f"min_samples {self.min_samples} is above training {self.training}: the check would learn for ever")
        if self.by is not None and self.explain_by is not None:
            raise ValueError("write `by` or `explain_by`, not both: the values of `by` explain a difference too")
        return self

    @property
    def metric_name(self) -> str:
        """The name under which the number is kept."""
        return self.name or slug(self.metric)[:60].strip("_")

    @property
    def check_name(self) -> str:
        """The name of the asset check."""
        return f"{self.metric_name}_anomaly"

    @property
    def dimension(self) -> str:
        """The column whose values are measured too; empty for none."""
        return self.by or self.explain_by or ""

    @property
    def promise(self) -> CheckPromise:
        """The asset check, before it runs."""
        sentence = self.description or f"{self.metric} of this window, compared with earlier windows"
        return CheckPromise(self.check_name, sentence, self.blocking and self.severity is Severity.ERROR)

    def settings(self, values: Iterable[float], *, timezone: str, length: timedelta | None) -> Settings:
        """The settings of the recipe. `values`, those of the history and the tested one, decide a transform that is left to them."""
        return Settings(
            transform=self._transform(values),
            season=None if self.season == "auto" else Season(self.season),
            direction=Direction(self.direction),
            sensitivity=self.sensitivity,
            ignore_small_changes=self.ignore_small_changes,
            min_change=self.min_change,
            min_samples=self.min_samples,
            training=self._windows_of(length),
            length=length,
            clock=Clock(timezone, self._days()),
        )

    def _transform(self, values: Iterable[float]) -> Transform:
        if self.transform != "auto":
            return Transform(self.transform)
        if _COUNTS.match(self.metric):
            return Transform.LOG1P
        if _SHARES.match(self.metric):
            return Transform.LOGIT
        known = list(values)
        if is_additive(self.metric) or all(value == round(value) for value in known):
            return Transform.LOG1P if all(value >= 0 for value in known) else Transform.NONE
        return Transform.LOGIT if all(0 <= value <= 1 for value in known) else Transform.NONE

    def _windows_of(self, length: timedelta | None) -> int | None:
        if isinstance(self.training, str):
            return max(int(parse_duration(self.training) / (length or timedelta(days=1))), self.min_samples)
        return self.training

    def _days(self) -> Calendar:
        dates: dict[date, str] = {}
        yearly: dict[tuple[int, int], str] = {}
        for kind, days in self.calendar.items():
            for day in (item if isinstance(item, date) else _day_of(item) for item in days):
                if isinstance(day, date):
                    dates[day] = kind
                else:
                    yearly[day] = kind
        return Calendar(dates, yearly)


def _day_of(text: str) -> date | tuple[int, int]:
    """A date, or month and day of a day of every year. Raises ValueError for other text."""
    if match := _YEARLY.match(text):
        day = date(2024, int(match["month"]), int(match["day"]))  # a leap year: 02-29 is a day
        return day.month, day.day
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a day: write 2024-12-25, or '12-25' for every year") from None


def slug(text: str) -> str:
    """`text` as lower case words joined by `_`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_") or "column"
