"""Registers the services that tests can ask for. Here: nothing else; a service has its own module under `services`."""

pytest_plugins = [
    "dataflow_assets_tests.services.elasticsearch",
    "dataflow_assets_tests.services.postgres",
    "dataflow_assets_tests.services.snowflake",
]
