"""Registers the services that tests can ask for. Here: nothing else; a service has its own module under `services`."""

pytest_plugins = [
    "dataflow_assets_tests.services.bigquery",
    "dataflow_assets_tests.services.clickhouse",
    "dataflow_assets_tests.services.elasticsearch",
    "dataflow_assets_tests.services.mysql",
    "dataflow_assets_tests.services.object_stores",
    "dataflow_assets_tests.services.postgres",
    "dataflow_assets_tests.services.postgres_tls",
    "dataflow_assets_tests.services.snowflake",
]
