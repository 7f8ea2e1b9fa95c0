"""Errors as Dagster keeps them: its event log has every cause of an error, and these are the words of drivers and of users' code.

Here: the same chain of errors without secrets. Not here: which secrets there are (`secrets`), the errors of this package, which mask
themselves (`errors`).
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from dataflow_assets.secrets import mask


def masked(error: BaseException) -> BaseException:
    """The error, its causes and contexts; one whose text holds a secret is replaced by another of the same name and traceback."""
    return _masked(error, {})


def _masked(error: BaseException, done: dict[int, BaseException]) -> BaseException:
    if id(error) in done:
        return done[id(error)]
    text = "".join(traceback.format_exception_only(error))
    shown = error if mask(text) == text else _stand_in(error)
    done[id(error)] = shown
    suppressed = error.__suppress_context__
    cause, context = error.__cause__, error.__context__
    shown.__cause__ = None if cause is None else _masked(cause, done)
    shown.__context__ = None if context is None else _masked(context, done)
    shown.__suppress_context__ = suppressed
    return shown


def _stand_in(error: BaseException) -> BaseException:
    kind = type(error)
    named = type(kind.__name__, (Exception,), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})
    found: BaseException = named(mask(str(error))).with_traceback(error.__traceback__)
    return found


@contextmanager
def errors_masked() -> Iterator[None]:
    """Raise what is raised inside without secrets, in it and in its causes."""
    try:
        yield
    except Exception as error:
        if (shown := masked(error)) is error:
            raise
        raise shown from shown.__cause__
