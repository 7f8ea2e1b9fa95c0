"""Whether one number of a dataset is unusual beside its own history.

Here: the recipe as pure functions of numbers and instants, its sentences and its picture; numpy and nothing else. Not here: where a
number comes from (`checks.metric_anomaly`), where its history lies (the ledger), what a verdict leads to (execution).
"""
