"""Backfills: a plan, pieces of it as Dagster runs, and what of it is done, for every host that shares the instance."""
