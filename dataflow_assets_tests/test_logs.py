"""Lines of logs: what they are about, that they are JSON whatever is logged, and that no secret is in them."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.logs import EXTRA, JsonFormatter, TextFormatter, about, current, note
from dataflow_assets.secrets import register_secret


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("dataflow_assets.of_a_test")
    logger.addHandler(handler)
    logger.setLevel("DEBUG")
    yield stream
    logger.removeHandler(handler)


LOG = logging.getLogger("dataflow_assets.of_a_test")


def test_a_line_says_when_what_and_about_what(lines: io.StringIO):
    register_secret("planted-in-a-log-1")
    with about(pipeline="orders", run_id="r1", correlation_id="c1", attempt="r1-0", window="", step=""):
        with about(window="2024-03-01"):
            note(step="read")
            LOG.info("%s rows\nof planted-in-a-log-1", 3, extra={EXTRA: {"rows": 3, "level": "not this"}})
        try:
            raise ValueError("planted-in-a-log-1")
        except ValueError:
            LOG.exception("it broke")
    assert current() == {}
    LOG.warning("nothing in particular")
    first, second, third = map(json.loads, lines.getvalue().splitlines())
    assert first["time"].endswith("Z")
    assert (first["level"], first["logger"], first["message"]) == ("info", "dataflow_assets.of_a_test", "3 rows\nof ****")
    named = {"run_id": "r1", "pipeline": "orders", "correlation_id": "c1", "attempt": "r1-0"}
    assert {name: first[name] for name in (*named, "step", "window")} == {**named, "step": "read", "window": "2024-03-01"}
    assert first["rows"] == 3
    assert "step" not in second
    assert second["exception"].endswith("ValueError: ****")
    assert set(third) == {"time", "level", "logger", "message", "process"}
    assert "planted-in-a-log-1" not in lines.getvalue()


def test_a_record_of_dagsters_names_its_run():
    record = logging.LogRecord("dagster", logging.INFO, __file__, 1, "STEP_START", None, None)
    tags = {"dataflow/pipeline": "orders", "dagster/partition": "2024-03-01", "dataflow/correlation_id": "c9"}
    record.dagster_meta = {"run_id": "r2", "job_name": "job", "job_tags": tags}
    line = json.loads(JsonFormatter().format(record))
    assert (line["run_id"], line["pipeline"], line["window"], line["correlation_id"]) == ("r2", "orders", "2024-03-01", "c9")


def test_what_a_generator_noted_does_not_outlive_it():
    def work() -> Iterator[int]:
        with about(pipeline="a"):
            yield 1
            yield 2

    running = work()
    next(running)
    assert current() == {"pipeline": "a"}
    running.close()
    assert current() == {}


@given(st.text(), st.dictionaries(st.text(), st.recursive(st.none() | st.floats() | st.text() | st.binary(), st.lists, max_leaves=5)))
def test_any_message_and_any_figure_is_one_line_of_json(message: str, figures: dict[str, object]):
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, message, None, None)
    setattr(record, EXTRA, figures)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line)["level"] == "error"
    assert TextFormatter().format(record)


def test_logs_import_nothing_heavy():
    assert "dagster" not in sys.modules["dataflow_assets.logs"].__dict__
