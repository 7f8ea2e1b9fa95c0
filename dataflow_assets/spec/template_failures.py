"""Everything that rendering can raise, as a TemplateError that says which key, which name, and what to do.

Here: the wording. Not here: rendering (`spec.templates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataflow_assets.errors import TemplateError
from dataflow_assets.spec.problems import near
from dataflow_assets.spec.template_context import TemplateContext

_WINDOW_NAMES = frozenset({"window", "batch_start", "batch_end", "batch_period", "event_time_column"})


class failures_named:  # noqa: N801 - reads as the statement it is
    """Turns everything that rendering can raise into a TemplateError with the key and, where one is to blame, the name."""

    def __init__(self, text: str, context: TemplateContext | None, path: tuple[str, ...]) -> None:
        self.text, self.context, self.path = text, context, path

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        if isinstance(error, TemplateError):
            raise TemplateError(self._at(error.message), hint=error.hint) from error
        if message := self._message(error):
            raise TemplateError(self._at(message[0]), hint=message[1]) from None

    def _at(self, message: str) -> str:
        """The message with its key; of variables inside variables only the innermost is named."""
        where = ".".join(self.path)
        if where.startswith("variable "):
            return message if message.startswith("variable ") else f"{where}: {message}"
        return message if not where or message.startswith(f"`{where}`: ") else f"`{where}`: {message}"

    def _message(self, error: BaseException) -> tuple[str, str] | None:
        from jinja2.exceptions import SecurityError, TemplateSyntaxError
        from jinja2.exceptions import TemplateError as JinjaError

        from dataflow_assets.spec.sandbox import UndefinedName

        if isinstance(error, UndefinedName):
            return self._undefined(error)
        if isinstance(error, SecurityError):
            return f"not allowed in a template: {error}", "templates offer plain values, if, for and the listed functions and filters"
        if isinstance(error, TemplateSyntaxError):
            line = self.text.splitlines()[error.lineno - 1 : error.lineno]
            return (
                f"malformed template: {error.message}{f', in: {line[0].strip()[:120]}' if line else ''}",
                "check the braces and quotes; braces that are no template go between {% raw %} and {% endraw %}",
            )
        if isinstance(error, (RecursionError, MemoryError, SyntaxError)):
            return "the template is nested too deeply", "split it over several variables"
        if isinstance(error, (JinjaError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)):
            return (
                f"the template fails: {error}, in: {self.text.strip()[:120]}",
                "check the types of its values; `| as_date`, `| int` convert",
            )
        return None

    def _undefined(self, error: Any) -> tuple[str, str]:
        from jinja2.utils import missing

        from dataflow_assets.spec.sandbox import offered_by

        name = error.missing_name
        if error.owner is not missing:
            known = error.owner if isinstance(error.owner, Mapping) else offered_by(error.owner)
            kind = "the mapping" if isinstance(error.owner, Mapping) else f"a {type(error.owner).__name__}"
            return f"{kind} has no {name!r}", near(name, known) or f"known: {', '.join(sorted(map(str, known))[:10]) or 'nothing'}"
        if name in _WINDOW_NAMES and self.context is not None and self.context.window is None:
            return f"{name!r} is unknown: this pipeline has no windows", "add `windows: {every: day, begin: ...}` to the pipeline"
        nearest = near(name, self.context.names if self.context else ())
        advice = f"set it under `variables:`, with --vars {name}=..., or write {{{{ var('{name}', default) }}}}"
        return f"{name!r} is unknown", nearest or advice
