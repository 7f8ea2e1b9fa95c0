"""One number per window, compared with the same number of earlier windows.

Here: the options of `anomaly:`, computing the number from a stage, choosing the history, the verdict and its sentence. Not here:
the formulas (`mad`), where the history is kept (the ledger; it arrives in the context).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from dataflow_assets.errors import DataflowError
from dataflow_assets.protocols import CheckPromise, CheckResult, Severity, StagedInput, StepContext
from dataflow_assets.spec.models import Model
from dataflow_assets.tables import Query

ROW_COUNT = "row_count"
_RELATIVE_FLOOR = 0.01
_TRANSFORMED_FLOOR = 0.05
_SMALLEST_SHARE = 0.001


class AnomalyOptions(Model):
    """What to measure, and when it counts as unusual.

    The number is unusual when it lies more than `n_sigma` standard deviations (1.4826 * MAD) from the median of its history. A
    history that hardly varies gets a smallest deviation: 1 % of the median, or 0.05 after log1p or logit.
    """

    metric: str = Field(ROW_COUNT, description="row_count, or an aggregate in DuckDB's SQL over the rows, such as avg(price)")
    name: str | None = Field(None, description="under which the number is kept in the ledger; default: made from metric")
    n_sigma: float = Field(3.0, gt=0, description="how many deviations from the median are unusual")
    window_size: int = Field(90, ge=1, description="how many earlier windows of the season are looked at")
    min_window_size: int = Field(10, ge=1, description="earlier windows before which the check only learns")
    use_weighted: bool = Field(False, description="newer windows count for more")
    weights_type: Literal["exponential", "linear"] = Field("exponential", description="how the weight falls with age, with use_weighted")
    exp_decay_factor: float = Field(0.1, ge=0, description="how fast, for exponential weights")
    direction: Literal["both", "up", "down"] = Field("both", description="which side is watched")
    season: Literal["none", "weekday", "day_of_week"] = Field(
        "none", description="compare with: every window; working days or weekends; the same day of the week"
    )
    transform: Literal["none", "log1p", "logit"] = Field("none", description="log1p for counts and sums, logit for shares between 0 and 1")
    min_change: float = Field(0.0, ge=0, description="smaller differences from the median, in the metric's own unit, are never unusual")
    severity: Severity = Field(Severity.ERROR, description="warn reports and goes on")
    blocking: bool = Field(False, description="whether an unusual number keeps the window from being published")
    description: str = Field("", description="shown with the check")

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

    @model_validator(mode="after")
    def _window_can_fill(self) -> Self:
        if self.min_window_size > self.window_size:
            raise ValueError(
                f"min_window_size {self.min_window_size} is above window_size {self.window_size}: the check would learn for ever"
            )
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
    def promise(self) -> CheckPromise:
        """The asset check, before it runs."""
        sentence = self.description or f"{self.metric} of this window, compared with earlier windows"
        return CheckPromise(self.check_name, sentence, self.blocking and self.severity is Severity.ERROR)


def slug(text: str) -> str:
    """`text` as lower case words joined by `_`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_") or "column"


@dataclass(frozen=True)
class Verdict:
    """A number beside its history, in the metric's own unit; no limit on a side that is not watched."""

    center: float
    low: float | None
    high: float | None
    score: float
    unusual: bool

    @property
    def expected(self) -> str:
        """The range in words."""
        if self.low is None:
            return f"at most {_shown(self.high or 0.0)}"
        return f"{_shown(self.low)} to {_shown(self.high)}" if self.high is not None else f"at least {_shown(self.low)}"


class MetricRun:
    """One metric over one stream; see `protocols.CheckRun`."""

    def __init__(self, options: AnomalyOptions, context: StepContext) -> None:
        self._options, self._context = options, context

    def update(self, batch: Any) -> None:
        """Nothing is needed of the stream: the number is worked out from the stage."""

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome, with the number among its metrics."""
        options = self._options
        try:
            value = measure(options.metric, stage, self._context)
        except DataflowError as error:
            return self._result(stage, f"{options.metric_name} cannot be worked out: {error.message}", passed=False)
        if value is None:
            return self._result(stage, f"{options.metric_name} has no value for these rows")
        history = seasonal(self._context.history.get(options.metric_name, ()), self._context.window_key, options)
        if len(history) < options.min_window_size:
            sentence = f"{options.metric_name} is {_shown(value)}: learning ({len(history)}/{options.min_window_size})"
            return self._result(stage, sentence, value=value, metadata={"history": len(history)})
        verdict = judge(value, history, options)
        return self._result(
            stage,
            self._sentence(value, verdict, len(history)),
            value=value,
            passed=not verdict.unusual,
            metadata={
                "history": len(history),
                "usual": verdict.center,
                "expected_min": verdict.low,
                "expected_max": verdict.high,
                "score": verdict.score,
                "n_sigma": options.n_sigma,
                "season": options.season,
            },
        )

    def _sentence(self, value: float, verdict: Verdict, count: int) -> str:
        options = self._options
        seasons = {"none": "windows", "weekday": "windows of such days", "day_of_week": "windows of this day of the week"}
        history = f"the {count} earlier {seasons[options.season]}"
        if not verdict.unusual:
            return f"{options.metric_name} is {_shown(value)}, as expected from {history} ({verdict.expected})"
        side = "above" if value > verdict.center else "below"
        return (
            f"{options.metric_name} is {_shown(value)}, unusually far {side} the {_shown(verdict.center)} of {history} "
            f"(expected {verdict.expected}; score {verdict.score:.1f}, limit {options.n_sigma:g})"
        )

    def _result(
        self,
        stage: StagedInput,
        sentence: str,
        *,
        value: float | None = None,
        passed: bool = True,
        metadata: Mapping[str, Any] | None = None,
    ) -> CheckResult:
        options = self._options
        return CheckResult(
            name=options.check_name,
            passed=passed,
            description=f"{options.description}: {sentence}" if options.description else sentence,
            severity=options.severity,
            blocking=options.blocking,
            checked=stage.rows,
            metadata={"rule": "anomaly", "metric": options.metric, "value": value, **(metadata or {})},
            metrics={} if value is None else {options.metric_name: value},
        )


def measure(metric: str, stage: StagedInput, context: StepContext) -> float | None:
    """The number for a stage; None when SQL says null, or NaN. Raises TransformFailed when it is not one number."""
    if metric == ROW_COUNT:
        return float(stage.rows)
    from dataflow_assets.errors import TransformFailed
    from dataflow_assets.storage.sandbox import open_sandbox

    query = Query.of(f'SELECT (\n{metric}\n) AS value FROM "input" LIMIT 2')  # noqa: S608 - it runs locked down, over this stage alone
    with open_sandbox({"input": stage}, scratch=context.scratch, step=context.step) as sandbox:
        table = sandbox.select(query).read_all()
    kind = table.schema.field(0).type
    if table.num_rows > 1 or not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)
    ):
        what = "one value per row" if table.num_rows > 1 else f"a value of type {kind}"
        raise TransformFailed(f"{metric!r} gives {what}, not one number", hint="write an aggregate such as avg(price)")
    value = table.column(0)[0].as_py() if table.num_rows else None
    return None if value is None or not math.isfinite(value) else float(value)


def seasonal(history: Sequence[tuple[str, float]], key: str, options: AnomalyOptions) -> list[float]:
    """The values to compare with: of the season of `key`, the newest `window_size`. Keys without a date are all one season."""
    season = _season(key, options.season)
    values = [value for other, value in history if other != key and _season(other, options.season) == season]
    return values[-options.window_size :]


def _season(key: str, season: str) -> int:
    if season == "none":
        return 0
    try:
        day = datetime.fromisoformat(key).weekday()
    except ValueError:
        return 0
    return day if season == "day_of_week" else int(day >= 5)


def judge(value: float, history: Sequence[float], options: AnomalyOptions) -> Verdict:
    """The number beside the weighted median and MAD of its history."""
    import numpy as np

    from dataflow_assets.mad import Settings, center, weights

    forward, back = _TRANSFORMS[options.transform]
    window = np.array([forward(item) for item in history], dtype=np.float64)
    settings = Settings(use_weighted=options.use_weighted, weights_type=options.weights_type, exp_decay_factor=options.exp_decay_factor)
    middle, std = center(window, weights(len(window), settings), np.ones(len(window), dtype=np.bool_))
    std = max(std, _TRANSFORMED_FLOOR if options.transform != "none" else _RELATIVE_FLOOR * abs(middle))
    distance, reach = abs(forward(value) - middle), options.n_sigma * std
    usual = back(middle)
    low, high = min(back(middle - reach), usual - options.min_change), max(back(middle + reach), usual + options.min_change)
    if options.transform == "logit":
        low, high = max(low, 0.0), min(high, 1.0)
    wrong_side = (options.direction == "up" and value < usual) or (options.direction == "down" and value > usual)
    # a history that is 0 throughout has no scale: only min_change can say what is a lot
    far = distance > reach if std else options.min_change > 0
    unusual = far and abs(value - usual) > options.min_change and not wrong_side
    return Verdict(
        center=usual,
        low=None if options.direction == "up" else low,
        high=None if options.direction == "down" else high,
        score=distance / std if std else 0.0,
        unusual=unusual,
    )


def _logit(share: float) -> float:
    inside = min(max(share, _SMALLEST_SHARE), 1 - _SMALLEST_SHARE)
    return math.log(inside / (1 - inside))


def _log1p(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value)


def _expm1(value: float) -> float:
    return math.copysign(math.expm1(min(abs(value), 700.0)), value)


_TRANSFORMS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "none": (float, float),
    "log1p": (_log1p, _expm1),
    "logit": (_logit, lambda value: 1 / (1 + math.exp(-value))),
}


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"
