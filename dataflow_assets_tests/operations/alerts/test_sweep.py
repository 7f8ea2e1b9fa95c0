"""From real runs on a real instance to letters and posts on real servers: once, with what to do next, and over again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataflow_assets.assets.instance import HOME, open_instance, settle
from dataflow_assets.assets.instance_settings import URL, switch
from dataflow_assets.assets.names import PIPELINE_TAG
from dataflow_assets.assets.pauses import Pause, keep_pause
from dataflow_assets.execution.drive import DriveRow, open_drive
from dataflow_assets.operations.alerts import Incident, ended_runs, report, sending
from dataflow_assets.operations.alerts.alone import alone
from dataflow_assets.operations.alerts.drive_watch import LEARNED_FROM
from dataflow_assets.operations.alerts.memory import Memory
from dataflow_assets.operations.alerts.sensor import NAME
from dataflow_assets.operations.alerts.sweep import Swept, summary, sweep
from dataflow_assets.operations.alerts.watching import Runs
from dataflow_assets.operations.load import load_project
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.calls import calls
from dataflow_assets_tests.services.http_server import Answer, Server, served
from dataflow_assets_tests.services.mail import mail_server

HOOK = "/services/T0/plantedhook31"


@dataclass
class House:
    """The shop with a Slack channel, its instance, and the clock of its sweeps."""

    folder: Path
    instance: dg.DagsterInstance
    slack: Server
    clock: timedelta = timedelta()
    loaded: tuple[ProjectPlan, Project] | None = None

    def write(self, alerts: str = "", *, bad_days: tuple[str, ...] = (), **pipelines: str) -> None:
        """Write the shop anew with further keys of `alerts:`."""
        shop.write_shop(self.folder, bad_days=bad_days, **pipelines)
        self.loaded = None
        channel = f"channels: {{ops: {{type: slack, webhook_url: '{self.slack.url}{HOOK}'}}}}"
        (self.folder / "dataflow_project.yml").write_text(
            f"project_name: shop\nalerts:\n  {channel}\n  ui_url: http://ui.example.org/\n{alerts}"
        )

    def planned(self) -> tuple[ProjectPlan, Project]:
        if self.loaded is None:
            project = load(self.folder)
            self.loaded = build_plan_tolerant(project)[0], project
        return self.loaded

    def sweep(self, later: timedelta = timedelta()) -> list[dict]:
        """Look once, so much later than the last time; the new posts."""
        self.clock += later
        before = len(self.slack.log)
        self.last = sweep(*self.planned(), self.instance, now=utc_now() + self.clock)
        return [asked.json for asked in self.slack.log[before:]]

    def memory(self) -> Memory:
        return Memory(self.instance, "shop")


@pytest.fixture
def house(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[House]:
    with served(lambda _: Answer("ok")) as slack:
        made = House(tmp_path / "shop", instance, slack)
        made.write()
        yield made


def words(post: dict) -> str:
    return "\n".join(block["text"]["text"] for block in post["blocks"]).replace("\u200b", "")


def test_a_check_that_fails_is_told_once_with_what_to_do_and_its_end_too(house: House):
    assert house.sweep() == []
    house.write(bad_days=("2024-03-02", "2024-03-04"))
    shop.run(house.folder, house.instance, tags=shop.RANGE)
    (post,) = house.sweep()
    told = words(post)
    assert "check failed: orders.clean: amount_range" in told
    assert "*What:*" in told
    assert "orders.clean (" in told
    assert "orders.yml:" in told
    assert "*Windows:* 2024-03-02, 2024-03-04" in told
    assert "*Rows:* 2 of 4 broke the rule" in told
    assert "lake/orders is as it was: nothing of these 2 windows was published" in told
    assert "dataflow show orders.clean\ndataflow run --select orders --window 2024-03-02 --window 2024-03-04" in told
    assert "<http://ui.example.org/runs/" in told
    assert shop.published(house.folder) == dict.fromkeys(["2024-03-01", "2024-03-03", "2024-03-05"], 2)
    assert list(summary(house.last)) == [f"sent to ops: {house.last.told[0]}"]

    shop.run(house.folder, house.instance, tags={"dagster/partition": "2024-03-02"})
    assert house.sweep() == []
    assert house.memory().pipelines(["orders"])["orders"].known["check_failure/clean.amount_range"].times == 2
    (reminder,) = house.sweep(timedelta(hours=24))
    assert "still check failed" in words(reminder)
    assert house.sweep() == []

    house.write()
    shop.run(house.folder, house.instance, tags={"dagster/partition": "2024-03-02"})
    assert house.sweep() == []  # one of the two windows is still missing
    shop.run(house.folder, house.instance, tags={"dagster/partition": "2024-03-04"})
    (over,) = house.sweep()
    assert "works again: orders (check failed)" in words(over)
    assert ", for 1 d" in words(over)
    assert house.memory().pipelines(["orders"])["orders"].known == {}
    assert house.sweep() == []
    assert [item.event for item in house.memory().sent()] == ["check_failure", "check_failure", "recovery"]
    assert HOOK not in json.dumps([str(item) for item in house.memory().sent()])


def test_a_failure_is_told_after_its_last_try_and_again_when_it_changes(house: House):
    (house.folder / "orders.parquet").unlink()
    shop.run(house.folder, house.instance, tags={"dagster/partition": "2024-03-01", "dagster/will_retry": "true"})
    assert house.sweep() == []
    for day in ("2024-03-01", "2024-03-02"):
        shop.run(house.folder, house.instance, tags={"dagster/partition": day})
    (post,) = house.sweep()
    told = words(post)
    assert "failed: orders.read:" in told
    assert "*Windows:* 2024-03-01, 2024-03-02" in told or "*Window:* 2024-03-01" in told
    assert "*Error:* ReadFailed" in told
    assert "lake/orders is as it was" in told
    pq.write_table(pa.table({"id": [1]}), house.folder / "orders.parquet")
    shop.run(house.folder, house.instance, tags={"dagster/partition": "2024-03-01"})
    (changed,) = house.sweep()
    assert words(changed) != told
    assert house.sweep(timedelta(hours=1)) == []
    shop.write_orders(house.folder)
    shop.run(house.folder, house.instance, tags=shop.RANGE)
    (over,) = house.sweep()
    assert "works again: orders (failed)" in words(over)


def test_a_run_whose_process_is_gone(house: House):
    job = shop.definitions(house.folder).resolve_job_def("report")
    run = house.instance.create_run_for_job(job, tags={PIPELINE_TAG: "report"})
    house.instance.report_run_failed(run, "the worker has not been heard of since 06:00")
    (post,) = house.sweep()
    assert "worker died: report: the run's process is gone" in words(post)
    assert "not been heard of since 06:00" in words(post)


def test_a_channel_that_fails_is_tried_again_later_and_nothing_is_lost(house: House):
    house.slack.faults += [Answer("oh", 500), Answer(drop=True)]
    report(house.instance, "shop", [Incident("gap", "orders", "a gap")])
    assert len(house.sweep()) == 1
    (line,) = summary(house.last)
    assert line.startswith("1 waiting for ops, tried 1 times, again at ")
    assert line.endswith("UTC: the address answers 500: oh")
    assert house.sweep(timedelta(seconds=20)) == []
    assert len(house.sweep(timedelta(seconds=15))) == 1
    assert house.sweep(timedelta(seconds=55)) == []
    (post,) = house.sweep(timedelta(seconds=10))
    assert "gap: orders: a gap" in words(post)
    assert house.memory().channels() == []
    assert house.sweep(timedelta(hours=1)) == []

    house.write("  give_up_after: 1h\n")
    house.slack.faults += [Answer("no_team", 404)] * 2
    report(house.instance, "shop", [Incident("late_window", "orders", "late rows")])
    for _ in range(3):
        house.sweep(timedelta(minutes=31))
    assert house.memory().channels() == []
    assert [item.error for item in house.memory().sent() if item.event == "late_window"] == ["given up: the address answers 404: no_team"]


def test_a_mail_that_some_have_got_is_sent_again_to_the_others_only(house: House, certificate: tuple[Path, Path]):
    with mail_server(certificate) as mail:
        smtp = f"  smtp: {{host: 127.0.0.1, port: {mail.port}, tls: none, from: d@example.org}}\n"
        told = "alerts: {channels: [], notify_email: ['Doe, Ann <ann@x.org>', nobody@x.org]}"
        house.write(smtp, orders=f"{told}\n{shop.ORDERS}")
        report(house.instance, "shop", [Incident("gap", "orders", "a gap")])
        house.sweep()
        assert "1 waiting for Doe, Ann <ann@x.org>, nobody@x.org" in "".join(summary(house.last))
        house.sweep(timedelta(minutes=31))
        assert "refuses nobody@x.org: 550" in "".join(summary(house.last))
    (envelope,) = mail.envelopes
    assert envelope.rcpt_tos == ["ann@x.org"]


def test_a_channel_that_never_ends_holds_up_no_other(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sending, "LONGEST_SEND", 0.2)
    house.slack.faults.append(Answer("ok", delay=2.0))
    report(house.instance, "shop", [Incident("gap", "orders", "a gap")])
    house.sweep()
    assert "the message was not taken within 0.2 s" in "".join(summary(house.last))


def test_many_messages_are_one_digest_and_many_channels_each_have_their_own(house: House, certificate: tuple[Path, Path]):
    with mail_server(certificate) as mail:
        smtp = f"  smtp: {{host: 127.0.0.1, port: {mail.port}, tls: none, from: d@example.org}}\n  owners: true\n  digest_above: 3\n"
        house.write(smtp)
        report(house.instance, "shop", [Incident("late_window", "orders", f"{n} rows came", cause=str(n)) for n in range(4)])
        report(house.instance, "shop", [Incident("gap", "report", "a gap"), Incident("gap", "no such pipeline", "a gap")])
        (post,) = house.sweep()
    assert post["text"].replace("\u200b", "").endswith("5 alerts of shop: 4 late_window, 1 gap")
    assert "late data: orders: 3 rows came" in words(post)
    (letter,) = mail.letters
    assert letter["To"] == "ann@example.com"
    assert letter["Subject"] == "[shop] 4 alerts of shop: 4 late_window"
    assert "dataflow alerts list" in letter.get_body(("plain",)).get_content()


def test_what_is_muted_is_told_when_it_is_heard_again_and_only_if_it_still_lasts(house: House):
    house.memory().mute("orders", utc_now() + timedelta(hours=2))
    report(house.instance, "shop", [Incident("gap", "orders", "a gap"), Incident("overdue", "orders", "late", cause="windows")])
    assert house.sweep() == []
    report(house.instance, "shop", [Incident("overdue", "orders", "there it is", cause="windows", over=True)])
    assert house.sweep(timedelta(hours=1)) == []
    (post,) = house.sweep(timedelta(hours=1))
    assert "gap: orders: a gap" in words(post)


def test_a_sweep_that_is_killed_anywhere_loses_nothing_and_its_messages_keep_their_ids(house: House, monkeypatch: pytest.MonkeyPatch):
    report(house.instance, "shop", [Incident("gap", "orders", "a gap")])
    writes = Memory._write
    for survived in range(8):

        def write(self, key, document, left=[survived]):  # noqa: B006 - counts down over the calls
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            writes(self, key, document)

        monkeypatch.setattr(Memory, "_write", write)
        with contextlib.suppress(KeyboardInterrupt):
            house.sweep()
    monkeypatch.setattr(Memory, "_write", writes)
    house.sweep()
    told = [asked.json for asked in house.slack.log]
    assert 1 <= len(told) <= 3  # at least once: it is struck off after it was sent
    assert {words(post) for post in told} == {words(told[0])}
    assert house.sweep(timedelta(hours=1)) == []
    assert len({item.id for item in house.memory().sent()}) == 1


def row(number: int, seconds: float, *, status: str = "SUCCESS", minutes_ago: float = 60.0, **more: object) -> DriveRow:
    start = utc_now() - timedelta(minutes=minutes_ago)
    end = start + timedelta(seconds=seconds) if status == "SUCCESS" else None
    key = f"2024-03-{number:02d}"
    window = shop.datetime.fromisoformat(f"{key}T00:00+00:00")
    values = {"query_window_start": window, "query_window_end": window + timedelta(days=1), "unit_key": key, **more}
    return DriveRow(f"orders_{number}_{status}", "orders", status, pipeline_start_timestamp=start, pipeline_end_timestamp=end, **values)


def test_slow_attempts_and_overdue_windows_are_read_from_the_drive(house: House):
    house.write("  overdue_after: 1h\n  events: [duration, overdue]\n", orders=shop.ORDERS.replace(", end: 2024-03-06", ""))
    drive = open_drive(house.planned()[1])
    for number in range(1, 6):
        drive.begin(row(number, 60.0 + number))
    keep_pause(house.instance, "shop", "orders", Pause(None))
    assert house.sweep() == []
    keep_pause(house.instance, "shop", "orders", None)
    (overdue,) = house.sweep()
    assert "overdue: orders: nothing newer than 2024-03-06 00:00 UTC is published" in words(overdue)

    drive.begin(row(6, 0, status="RUNNING", minutes_ago=2, run_id="r6"))
    assert house.sweep() == []
    (slow,) = house.sweep(timedelta(minutes=5))
    assert "slow: orders: is taking 7 min, 6.67 times as long as usual" in words(slow)
    assert "*Usually:* 1 min (median of the last attempts)" in words(slow)
    assert "<http://ui.example.org/runs/r6|" in words(slow)
    assert house.sweep(timedelta(minutes=5)) == []

    drive.close()


def test_what_is_paused_is_told_no_more_to_be_overdue(house: House):
    house.write("  overdue_after: 1h\n  events: [overdue]\n", orders=shop.ORDERS.replace(", end: 2024-03-06", ""))
    with contextlib.closing(open_drive(house.planned()[1])) as drive:
        drive.begin(row(1, 60.0))
    assert len(house.sweep()) == 1
    assert len(house.sweep(timedelta(hours=25))) == 1
    keep_pause(house.instance, "shop", "orders", Pause(None))
    assert house.sweep(timedelta(hours=25)) == []
    keep_pause(house.instance, "shop", "orders", None)
    (again,) = house.sweep()
    assert "still" not in words(again)


def test_a_backfill_of_old_windows_makes_nothing_overdue(house: House):
    house.write("  overdue_after: 2d\n  events: [overdue]\n", orders=shop.ORDERS.replace(", end: 2024-03-06", ""))
    day = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    with contextlib.closing(open_drive(house.planned()[1])) as drive:
        drive.begin(row(1, 60.0, query_window_start=day - timedelta(days=1), query_window_end=day))
        for number in range(2, 2 + LEARNED_FROM):
            drive.begin(row(number, 60.0))
    assert house.sweep() == []


def test_a_drive_that_cannot_be_asked_stops_no_alert(house: House):
    house.write()
    file = house.folder / "dataflow_project.yml"
    file.write_text(
        file.read_text()
        + "connections: {away: {type: postgres, host: 127.0.0.1, port: 1, user: u, password: planted-pw-12}}\ndrive: {connection: away}\n"
    )
    report(house.instance, "shop", [Incident("gap", "orders", "a gap")])
    assert len(house.sweep()) == 1
    assert any("the drive table cannot be asked" in line for line in summary(house.last))
    assert "planted-pw-12" not in str(house.last)


def test_the_sensor_ticks_on_a_real_instance_and_starts_only_where_somebody_is_told(house: House):
    def sensors() -> list[dg.SensorDefinition]:
        return [item for item in load_project(house.folder).sensors or () if item.name == NAME]

    (sensor,) = sensors()
    assert (sensor.default_status, sensor.minimum_interval_seconds) == (dg.DefaultSensorStatus.STOPPED, 30)
    house.write("  status: running\n  check_every: 1min\n")
    (sensor,) = sensors()
    assert (sensor.default_status, sensor.minimum_interval_seconds) == (dg.DefaultSensorStatus.RUNNING, 60)
    report(house.instance, "shop", [Incident("gap", "orders", "a gap")])
    house.slack.faults.append(Answer("oh", 500))
    with dg.build_sensor_context(instance=house.instance) as context:
        tick = sensor.evaluate_tick(context)
        assert "1 waiting for ops, tried 1 times" in str(tick.skip_message)
        assert sensor.evaluate_tick(context).run_requests == []
    (house.folder / "dataflow_project.yml").write_text("project_name: shop\n")
    assert sensors() == []


def test_two_sweeps_at_once_are_one(house: House):
    outcomes: list[Swept] = []
    house.slack.route = lambda _: (outcomes.append(sweep(*house.planned(), house.instance, now=utc_now())), Answer("ok"))[1]
    report(house.instance, "shop", [Incident("gap", "orders", "a gap")])
    assert len(house.sweep()) == 1
    assert [swept.busy for swept in outcomes] == [True]


def test_hosts_that_share_a_history_sweep_one_at_a_time(postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(URL, postgres_dsn)
    instances = []
    for host in ("one", "other"):
        monkeypatch.setenv(HOME, str(tmp_path / host))
        (tmp_path / host).mkdir()
        settle(tmp_path / host)
        switch(tmp_path / host, "postgres")
        instances.append(open_instance(shop.planned(shop.write_shop(tmp_path / f"shop_{host}"))[1]))
    one, other = instances
    with one, other:
        with alone(one, "shop") as first, alone(other, "shop") as second:
            assert (first, second) == (True, False)
        with alone(other, "shop") as now:
            assert now


def test_a_sweep_that_finds_nothing_costs_next_to_nothing_for_each_pipeline(house: House):
    plan, project = house.planned()

    def cost(many: int) -> int:
        pipelines = tuple(replace(plan.by_name["report"], name=f"p{number}") for number in range(many))
        wide = ProjectPlan(plan.name, pipelines)
        sweep(wide, project, house.instance, now=utc_now())
        return calls(lambda: sweep(wide, project, house.instance, now=utc_now()))

    few, many = cost(10), cost(510)
    assert (many - few) / 500 < 120, (few, many)


def test_pipelines_that_cannot_be_loaded_are_told_as_the_projects(house: House):
    house.write(report="pipeline_name: [")
    (post,) = house.sweep()
    assert "failed: (project): 1 of 2 pipelines cannot be loaded: report" in words(post)
    assert "dataflow validate" in words(post)
    assert house.sweep() == []
    house.write(report="pipeline_name: report\nenabled: false\nsteps: []\n")
    (over,) = house.sweep()
    assert "works again: (project) (failed)" in words(over)


def test_one_run_that_cannot_be_read_keeps_nothing_from_being_told(house: House, monkeypatch: pytest.MonkeyPatch):
    (house.folder / "orders.parquet").unlink()
    for pipeline in ("report", "orders"):
        shop.run(house.folder, house.instance, pipeline=pipeline, tags={"dagster/partition": "2024-03-01"} if pipeline == "orders" else {})
    read = Runs._read

    def broken(self: Runs, record: dg.RunRecord, pipeline: object) -> object:
        if record.dagster_run.job_name == "report":
            raise ValueError("an event of another age")
        return read(self, record, pipeline)

    monkeypatch.setattr(Runs, "_read", broken)
    (post,) = house.sweep()
    assert "failed: orders" in words(post)
    assert any("cannot be read: ValueError: an event of another age" in line for line in summary(house.last))
    assert house.sweep() == []


def test_a_sweep_reads_no_more_runs_than_it_has_time_for_and_the_next_goes_on(house: House, monkeypatch: pytest.MonkeyPatch):
    job = shop.definitions(house.folder).resolve_job_def("report")
    for number in range(5):
        run = house.instance.create_run_for_job(job, tags={PIPELINE_TAG: "report"})
        house.instance.report_run_failed(run, f"gone {number}")
    monkeypatch.setattr(ended_runs, "MOST_RUNS", 2)
    house.sweep()
    times = [house.memory().pipelines(["report"])["report"].known["stale_run/run"].times]
    for _ in range(3):
        house.sweep()
        times.append(house.memory().pipelines(["report"])["report"].known["stale_run/run"].times)
    assert times == [2, 4, 5, 5]
    assert len(house.slack.log) == 1
