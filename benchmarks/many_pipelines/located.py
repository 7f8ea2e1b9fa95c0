"""A project as a code server loads it: `python -m benchmarks.many_pipelines.located <folder>` prints its CPU seconds.

Here: what `measure_many_pipelines` measures of ours. Not here: what it is compared with (`bare`).
"""

import json
import sys
import time
import warnings

warnings.simplefilter("ignore")

from dagster._core.remote_representation.external_data import RepositorySnap  # noqa: E402

from dataflow_assets.operations.load import load_project  # noqa: E402


def main(folder: str) -> None:
    repository = load_project(folder).get_repository_def()
    loaded = time.process_time()
    RepositorySnap.from_def(repository)
    print(json.dumps({"load": loaded, "total": time.process_time()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
