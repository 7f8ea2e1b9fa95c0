"""One number per window, compared with the same number of earlier windows.

Here: the check of one metric: its number, its verdict, what is kept for later windows. Not here: the options (`checks._anomaly`), how
the number is worked out (`checks._measuring`), the recipe (`anomalies`), where the history lies (the ledger; it comes in the context).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dataflow_assets.anomalies.history import FLAG, ROWS, Measured, Standing
from dataflow_assets.anomalies.scales import Transform
from dataflow_assets.anomalies.settings import Settings
from dataflow_assets.anomalies.verdict import Verdict, judge
from dataflow_assets.checks._anomaly import AnomalyOptions, slug
from dataflow_assets.checks._dimensions import Dimension, judge_parts, known_values, part_name
from dataflow_assets.checks._measuring import ROW_COUNT, Measurement, Measuring, Wanted
from dataflow_assets.protocols import CheckResult, Picture, StagedInput, StepContext

__all__ = ["AnomalyOptions", "MetricRun", "slug"]

_ENOUGH_WITH_ROWS = 3
_SHIFTED = 3


class MetricRun:
    """One metric over one stream; see `protocols.CheckRun`. The metrics of a step are worked out together, from the stage."""

    def __init__(self, options: AnomalyOptions, context: StepContext) -> None:
        self._options, self._context = options, context
        self._measuring: Measuring = context.shared.setdefault("measuring", Measuring(context))
        kept = known_values(options, context) if options.dimension else ()
        self._wanted = self._measuring.add(Wanted(options.metric, options.dimension, options.top, kept))
        # a batch is as old as the clock says that dates its ledger rows, not as the run that it belongs to
        self._start = context.window.start if context.window is not None else datetime.now(UTC)

    def update(self, batch: Any) -> None:
        """Nothing is needed of the stream."""

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome, with the number and its parts among its metrics, and a mark on each that is flagged."""
        name, found = self._options.metric_name, self._measuring.of(self._wanted, stage)
        if found.error:
            return self._result(stage, f"{name} cannot be worked out: {found.error}", passed=False)
        if not stage.rows and (sentence := self._zero_rows(found)):
            return self._said(stage, sentence, found, flagged=True)
        if found.value is None:
            return self._said(stage, f"{name} has no value for these rows", found)
        return self._judged(stage, found, found.value)

    def _history(self) -> Sequence[Measured]:
        return self._context.history.get(self._options.metric_name, ())

    def _zero_rows(self, found: Measurement) -> str:
        """The rule of its own about a window without rows; empty when it does not break it."""
        history, rule = [item for item in self._history() if item.start < self._start], self._options.zero_rows
        empty = [item for item in history if item.value == 0] if self._options.metric == ROW_COUNT else []
        if rule == "pass" or (rule == "auto" and (empty or len(history) < _ENOUGH_WITH_ROWS)):
            return ""
        had = f"the {len(history)} windows before it all had some" if history and not empty else "zero_rows is fail"
        return f"there are no rows in this window, and {had}"

    def _settings(self, value: float) -> Settings:
        window = self._context.window
        values = [*(item.value for item in self._history()), value]
        return self._options.settings(values, timezone=self._context.timezone, length=window.end - window.start if window else None)

    def _judged(self, stage: StagedInput, found: Measurement, value: float) -> CheckResult:
        from dataflow_assets.anomalies.sentences import sentence

        settings = self._settings(value)
        tested = Measured(self._context.window_key, self._start, value, stage.rows)
        verdict = judge(tested, self._history(), settings)
        said = sentence(self._options.metric_name, verdict, settings)
        parts = self._dimension(stage, found, settings)
        if parts and verdict.flagged and verdict.expected and (why := parts.explains(above=value > verdict.expected.center)):
            said += f"; {why}"
        said += "".join(f"; {words}" for words in (parts.words() if parts and self._options.by else []))
        flagged = verdict.flagged or bool(parts and self._options.by and parts.flagged)
        said += self._hint(verdict) if verdict.flagged else ""
        return self._said(
            stage, said, found, flagged=flagged, alone=verdict.flagged, parts=parts, metadata=self._shown(tested, verdict, settings, parts)
        )

    def _dimension(self, stage: StagedInput, found: Measurement, settings: Settings) -> Dimension | None:
        if not self._options.dimension:
            return None
        known = self._wanted.kept
        return judge_parts(found.parts, self._options, self._context, known=known, settings=settings, start=self._start, rows=stage.rows)

    def _hint(self, verdict: Verdict) -> str:
        """After some windows of the season in a row on the same side: that this may be the new level."""
        if verdict.fit is None or verdict.expected is None:
            return ""
        row, center = 0, verdict.expected.center
        for item in reversed(verdict.fit.alike(self._history(), verdict.start)):
            if item.standing is not Standing.FLAGGED or (item.value > center) is not (verdict.value > center):
                break
            row += 1
        if row < _SHIFTED:
            return ""
        alike = verdict.fit.settings.clock.describe(verdict.start, verdict.fit.season)
        return f"; so were the {row} {alike} before: if this is the new level, acknowledge it as a level shift"

    def _shown(self, tested: Measured, verdict: Verdict, settings: Settings, parts: Dimension | None) -> dict[str, Any]:
        shown: dict[str, Any] = {"trained_on": verdict.trained, "transform": str(settings.transform)}
        expected, fit = verdict.expected, verdict.fit
        if expected is not None and fit is not None:
            from dataflow_assets.anomalies.picture import band_plot

            title = self._options.metric_name
            svg = band_plot(title, tested, self._history(), verdict)
            shown |= {
                "picture": Picture(svg, f"{title} and what was expected of it"),
                "usual": _figures(expected.center),
                "expected_min": _figures(expected.low),
                "expected_max": _figures(expected.high),
                "score": round(verdict.score, 2),
                "sensitivity": settings.sensitivity,
                "season": f"{fit.season} ({'written' if settings.season else 'found'}; {fit.season.words})",
                "same_season": expected.alike,
                "trend_per_day": _figures(fit.layer.slope),
            }
        if parts:
            shown[f"by_{slug(parts.column)}"] = parts.table()
        return shown

    def _said(
        self,
        stage: StagedInput,
        sentence: str,
        found: Measurement,
        *,
        flagged: bool = False,
        alone: bool = True,
        parts: Dimension | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> CheckResult:
        """The result, unless somebody has already said that the number is right."""
        name = self._options.metric_name
        accepted = self._context.acknowledged.get(name, "")
        if flagged and accepted:
            sentence += f"; acknowledged as {accepted.replace('_', ' ')}"
        metrics = {} if found.value is None else {name: found.value}
        metrics |= {part_name(name, part.name): part.verdict.value for part in (parts.parts if parts else ())}
        if metadata and metadata.get("transform") == Transform.LOGIT:
            metrics |= {f"{name}{ROWS}": float(stage.rows)}
            metrics |= {f"{part_name(name, part.name)}{ROWS}": float(part.rows) for part in (parts.parts if parts else ())}
        if flagged and not accepted:
            metrics |= {f"{name}{FLAG}": 1.0} if alone else {}
            metrics |= {f"{part_name(name, part.name)}{FLAG}": 1.0 for part in (parts.flagged if parts else ())}
        result = self._result(stage, sentence, passed=not flagged or bool(accepted), value=found.value, metadata=metadata)
        return replace(result, metrics=metrics)

    def _result(
        self, stage: StagedInput, sentence: str, *, passed: bool, value: float | None = None, metadata: Mapping[str, Any] | None = None
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
        )


def _figures(value: float | None) -> float | None:
    """A number to six figures: more would only look exact."""
    return None if value is None else float(f"{value:.6g}")
