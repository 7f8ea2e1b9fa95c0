"""The whole extension surface: what a connector, a transform and a check must offer.

Here: the three protocols and the plain data in their signatures, by the families that use them. Not here: any implementation;
`kind: postgres` in YAML is the class `Connector` in `connectors/postgres.py`, `processor_type: sql` the class `Transform` in
`transforms/sql.py`, and `processor_type: validator` the class `Check` in `checks/validator.py`. Adding one touches one new file and its
test.
"""

from dataflow_assets.protocols.checks import (
    BrokenRows,
    Check,
    CheckPromise,
    CheckResult,
    CheckRun,
    PicksRows,
    Picture,
    PromisesFromFiles,
    Reference,
    RefersToDatasets,
    Scope,
    Severity,
)
from dataflow_assets.protocols.connectors import (
    Capabilities,
    Comparable,
    ConnectionContext,
    Connector,
    KeepsRecords,
    KeepsSchemas,
    ListsFiles,
    Reconciles,
    Retires,
    TakesFiles,
    TellsHorizon,
    TellsSourceVersion,
)
from dataflow_assets.protocols.steps import Mistake, StagedInput, StepContext, TellsCodeVersion, TellsMistakes, Transform

__all__ = [
    "BrokenRows",
    "Capabilities",
    "Check",
    "CheckPromise",
    "CheckResult",
    "CheckRun",
    "Comparable",
    "ConnectionContext",
    "Connector",
    "KeepsRecords",
    "KeepsSchemas",
    "ListsFiles",
    "Mistake",
    "PicksRows",
    "Picture",
    "PromisesFromFiles",
    "Reconciles",
    "Reference",
    "RefersToDatasets",
    "Retires",
    "Scope",
    "Severity",
    "StagedInput",
    "StepContext",
    "TakesFiles",
    "TellsCodeVersion",
    "TellsHorizon",
    "TellsMistakes",
    "TellsSourceVersion",
    "Transform",
]
