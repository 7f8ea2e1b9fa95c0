"""`dataflow workers`."""

from contextlib import closing

from dataflow_assets.execution.drive import FAILED, DriveRow, open_drive
from dataflow_assets.execution.liveness import ERROR_CLASS
from dataflow_assets.spec.load import load
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.assets import shop

GONE = 4_194_303  # above every process number that this system gives


def test_nobody_at_work(call, tmp_path):
    answer = call("--project", shop.write_shop(tmp_path / "shop"), "workers")
    assert (answer.code, "Nobody is at work" in answer.out) == (0, True)


def test_a_worker_that_is_gone_is_shown_and_released(call, tmp_path):
    import os
    import socket

    project = shop.write_shop(tmp_path / "shop")
    own = {"host": socket.gethostname(), "pipeline_start_timestamp": utc_now(), "heartbeat_at": utc_now()}
    with closing(open_drive(load(project))) as drive:
        drive.begin(DriveRow("a", "orders", unit_key="2024-03-01", process_id=GONE, **own))
    at = ("--project", project, "workers")
    shown = call(*at, "--json")
    assert (shown.code, shown.json["ok"], shown.json["workers"][0]["state"]) == (1, False, "gone")
    assert "workers --release" in call(*at).out
    released = call(*at, "--release", "--json")
    assert (released.code, released.json["workers"], released.json["released"][0]["window"]) == (0, [], "2024-03-01")
    with closing(open_drive(load(project))) as drive:
        (found,) = drive.rows()
        assert (found.pipeline_status, found.error_class) == (FAILED, ERROR_CLASS)
        drive.begin(DriveRow("b", "orders", unit_key="2024-03-02", process_id=os.getpid(), **own))
    assert call(*at, "--json").json["workers"][0]["state"] == "at work"
