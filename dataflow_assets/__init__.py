"""Move tables between systems, incrementally and exactly once, as Dagster assets.

The public surface; every name is imported when it is first used, so importing this package loads neither Dagster nor a driver.
"""
