"""The job of a pipeline among its neighbours."""

import dagster as dg

from dataflow_assets.assets.names import job_name
from dataflow_assets.operations.load import load_project


def test_a_check_that_somebody_else_has_put_on_our_asset_is_part_of_the_job(project):
    loaded = load_project(project)
    name, key = _any_endpoint(loaded)

    @dg.asset_check(asset=key, additional_deps=["elsewhere"])
    def theirs():
        return dg.AssetCheckResult(passed=True)

    @dg.asset
    def elsewhere():
        return None

    together = dg.Definitions.merge(loaded, dg.Definitions(assets=[elsewhere], asset_checks=[theirs]))
    layer = together.resolve_job_def(job_name(name)).asset_layer
    assert dg.AssetCheckKey(key, "theirs") in layer.asset_graph.asset_check_keys
    assert "elsewhere" not in {asset.to_user_string() for asset in layer.selected_asset_keys}


def _any_endpoint(loaded):
    job = next(iter(loaded.jobs))
    return job.tags["dataflow/pipeline"], sorted(job.selection.resolve(loaded.get_repository_def().asset_graph))[-1]
