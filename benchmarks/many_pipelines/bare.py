"""Bare Dagster objects as somebody writes them in Python: `python -m benchmarks.many_pipelines.bare <number>` prints CPU seconds.

Here: what a project is compared with: for each pipeline a multi-asset of five assets and three checks, a job and a schedule. Not here:
anything of the project's.
"""

import json
import sys
import time
import warnings

warnings.simplefilter("ignore")

import dagster as dg  # noqa: E402
from dagster._core.remote_representation.external_data import RepositorySnap  # noqa: E402

STEPS = ("read", "clean", "rules", "totals", "write")
DAYS = dg.DailyPartitionsDefinition("2024-01-01")


def pipeline(number: int) -> dg.AssetsDefinition:
    keys = [dg.AssetKey([f"p{number}", step]) for step in STEPS]
    specs = [
        dg.AssetSpec(key, deps=keys[at - 1 : at] if at else [], partitions_def=DAYS, group_name=f"p{number}", kinds={"csv"})
        for at, key in enumerate(keys)
    ]
    checks = [dg.AssetCheckSpec(f"rule_{rule}", asset=keys[2], blocking=True, partitions_def=DAYS) for rule in range(3)]

    @dg.multi_asset(name=f"p{number}", specs=specs, check_specs=checks, can_subset=True)
    def steps(context):
        yield from ()

    return steps


def main(number: str) -> None:
    assets = [pipeline(at) for at in range(int(number))]
    jobs = [dg.define_asset_job(f"j{at}", selection=dg.AssetSelection.assets(*found.keys)) for at, found in enumerate(assets)]
    schedules = [dg.ScheduleDefinition(name=f"s{at}", cron_schedule="0 0 * * *", job=job) for at, job in enumerate(jobs)]
    repository = dg.Definitions(assets=assets, jobs=jobs, schedules=schedules, executor=dg.in_process_executor).get_repository_def()
    loaded = time.process_time()
    RepositorySnap.from_def(repository)
    print(json.dumps({"load": loaded, "total": time.process_time()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
