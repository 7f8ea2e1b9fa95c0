"""Trying again within a run: which errors, after which waits, for how long, and nothing that is done a second time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.connectors import parquet
from dataflow_assets.errors import ConnectionFailed, DataflowError, ReadFailed, ValueRefused
from dataflow_assets.execution.events import StepFinished, WindowFailed, WindowFinished
from dataflow_assets.execution.retrying import Patience, delay_before
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.spec.retries import RetryOptions
from dataflow_assets_tests.execution.workshop import Workshop, days, failures

PIPELINE = """\
event_time_column: ts
windows: {every: day, begin: 2024-01-01, end: 2024-01-04}
retries: {max_retries: 3, delay: 1s, budget: 10min}
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: in.parquet}}
  - {id: clean, type: transform, kind: sql, depends_on: [read], config: {query: select * from read}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [clean], config: {file_path: out}}
"""


class Clock:
    """Time that passes only when somebody waits, or a try is said to take long."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def patience(self, **options: Any) -> Patience:
        return Patience(RetryOptions(**options), clock=self, sleep=self.sleep, spread=lambda _, high: high)


@pytest.fixture
def shop(tmp_path) -> Workshop:
    made = Workshop(tmp_path)
    made.write("in.parquet", days())
    made.pipeline(PIPELINE)
    return made


def ask(shop: Workshop, patience: Patience, **keys: Any) -> list[Any]:
    project, plan = shop.load()
    windows = tuple(item.window for item in shop.status() if item.run)
    return list(run(RunRequest(project, plan, windows, keys.pop("attempt", "try"), shop.now, **keys), patience=patience))


class Faulty:
    """The connector fails at these calls of read or publish, counted from 1, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, errors: dict[int, Exception]) -> None:
        self.calls, real = 0, getattr(parquet.Connector, method)

        def wrapped(connector, *args, **keys):
            self.calls += 1
            if (error := errors.get(self.calls)) is not None:
                raise error
            return real(connector, *args, **keys)

        monkeypatch.setattr(parquet.Connector, method, wrapped)


def test_only_the_failed_window_is_tried_again_and_from_its_stages(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    reads = Faulty(monkeypatch, "read", {})
    publishes = Faulty(monkeypatch, "publish", {2: ConnectionFailed("gone"), 3: ConnectionFailed("still gone")})
    clock = Clock()
    events = ask(shop, clock.patience(max_retries=3, delay="1s"))
    assert (reads.calls, publishes.calls) == (3, 5)
    assert clock.waits == [1.0, 2.0]
    assert [event.key for event in events if isinstance(event, WindowFinished)] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    tries = failures(events)
    assert [(failed.key, failed.step, failed.tries, failed.again.number, failed.again.left) for failed in tries] == [
        ("2024-01-02", "write", 1, 1, 3),
        ("2024-01-02", "write", 2, 2, 2),
    ]
    resumed = [event.resumed for event in events if isinstance(event, StepFinished) and event.key == "2024-01-02" and event.step == "clean"]
    assert resumed == [False, True, True]
    assert [row["id"] for row in shop.rows("out")] == list(range(12))
    assert not list((shop.folder / ".dataflow/stages").glob("*/*/*")), "a window that succeeded in the end leaves nothing"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ValueRefused("too long"), "permanent: another try would not help"),
        (ConnectionFailed("wrong password", transient=False), "configuration: another try would not help"),
        (PermissionError(13, "not yours"), "configuration: another try would not help"),
        (RuntimeError("a bug"), "permanent: another try would not help"),
    ],
)
def test_permanent_and_configuration_errors_are_not_tried_again(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
):
    reads, clock = Faulty(monkeypatch, "read", {1: error}), Clock()
    (failed,) = failures(ask(shop, clock.patience()))
    assert (reads.calls, clock.waits, failed.again, failed.given_up) == (1, [], None, why)


def test_a_full_disk_is_tried_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    reads, clock = Faulty(monkeypatch, "read", {1: OSError(28, "No space left on device")}), Clock()
    events = ask(shop, clock.patience())
    assert [failed.again is not None for failed in failures(events)] == [True]
    assert reads.calls == 4
    assert len(shop.rows("out")) == 12


def test_the_tries_of_one_window_are_not_those_of_the_next(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    gone = ConnectionFailed("gone")
    Faulty(monkeypatch, "publish", {1: gone, 2: gone, 4: gone, 5: gone})
    events = ask(shop, Clock().patience(max_retries=2))
    assert len(failures(events)) == 4
    assert len(shop.rows("out")) == 12


def test_the_last_failure_says_how_often_it_was_tried(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    Faulty(monkeypatch, "publish", dict.fromkeys(range(1, 9), ConnectionFailed("gone")))
    *earlier, last = failures(ask(shop, Clock().patience(max_retries=2)))
    assert [failed.again.left for failed in earlier] == [2, 1]
    assert (last.tries, last.again, last.given_up) == (3, None, "tried 3 times, max_retries is 2")
    # what the tries have staged serves the next run
    reads = Faulty(monkeypatch, "read", {})
    monkeypatch.undo()
    again = ask(shop, Clock().patience(), attempt="later")
    assert reads.calls == 0
    assert [event.resumed for event in again if isinstance(event, StepFinished) and event.step == "read"] == [True, False, False]


def test_the_budget_counts_waits_and_tries_of_the_whole_run(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    clock, gone = Clock(), ConnectionFailed("gone")
    real = parquet.Connector.publish

    def slow(connector, request):
        clock.now += 10
        if clock.now < 500:
            raise gone
        return real(connector, request)

    monkeypatch.setattr(parquet.Connector, "publish", slow)
    *earlier, last = failures(ask(shop, clock.patience(max_retries=50, delay="4s", budget="60s", backoff="linear")))
    assert clock.waits == [4.0, 8.0, 12.0]
    assert [failed.again.budget for failed in earlier] == [60.0, 46.0, 28.0]
    assert last.given_up == "tried 4 times; of the budget of 60s 6s are left, less than the next wait of 16s"


def test_what_the_system_asks_for_is_waited_for_or_not_at_all(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    busy = ReadFailed("429", transient=True)
    busy.retry_after = 77.0
    Faulty(monkeypatch, "read", {1: busy, 3: busy})
    clock = Clock()
    *_, last = failures(ask(shop, clock.patience(max_delay="5s", budget="100s")))
    assert clock.waits == [77.0]
    assert "23s are left, less than the next wait of 77s" in last.given_up


def test_a_run_may_say_otherwise_than_its_pipeline(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    Faulty(monkeypatch, "read", {1: ConnectionFailed("gone")})
    (failed,) = failures(shop.run(retries=RetryOptions(max_retries=0)))
    assert failed.given_up == "tried once, max_retries is 0"


def test_a_stop_during_the_wait_leaves_what_a_resume_needs(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    Faulty(monkeypatch, "publish", {1: ConnectionFailed("gone")})

    def stopped(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(shop, Patience(RetryOptions(), sleep=stopped))
    reads = Faulty(monkeypatch, "read", {})
    again = ask(shop, Clock().patience(), attempt="later")
    assert not failures(again)
    assert reads.calls == 2
    assert len(shop.rows("out")) == 12


@given(
    retry=st.integers(1, 200),
    backoff=st.sampled_from(["exponential", "linear", "none"]),
    delay=st.integers(0, 100),
    longest=st.integers(0, 1000),
    at=st.floats(0, 1),
)
def test_waits_grow_up_to_the_longest_and_are_spread_by_half(retry: int, backoff: Any, delay: int, longest: int, at: float):
    options = RetryOptions(backoff=backoff, delay=f"{delay}s", max_delay=f"{longest}s")
    wait = delay_before(retry, options, spread=lambda low, high: low + (high - low) * at)
    plain = {"none": 0, "linear": delay * retry, "exponential": delay * 2 ** (retry - 1)}[backoff]
    assert min(plain, longest) / 2 <= wait <= min(plain, longest)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=60), st.integers(0, 5), st.integers(0, 500))
def test_a_run_never_waits_beyond_its_budget(course: list[tuple[bool, float]], retries: int, budget: int):
    """Whatever fails, however long the tries take: the waits of all windows together fit the budget, and tries their limit."""
    clock = Clock()
    patience = Patience(RetryOptions(max_retries=retries, budget=f"{budget}s"), clock=clock, sleep=clock.sleep)
    patience.begin()
    tries = 0
    for failing, seconds in course:
        clock.now += seconds
        if not failing:
            patience.begin()
            tries = 0
            continue
        failed = patience.judge(WindowFailed("k", None, "s", DataflowError("x", transient=True)))
        tries += 1
        assert failed.tries == tries
        assert (failed.again is not None) + bool(failed.given_up) == 1
        if failed.again is None:
            patience.begin()
            tries = 0
        else:
            assert tries <= retries
            patience.wait(failed.again)
    assert sum(clock.waits) <= budget + 1e-6
