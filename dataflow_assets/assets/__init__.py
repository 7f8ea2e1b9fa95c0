"""The Dagster edge: plans become assets, checks, partitions, jobs and runs. Nothing below this package knows Dagster."""
