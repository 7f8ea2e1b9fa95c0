"""What Dagster shows of a dataset's contract: tags and static metadata of its asset.

Here: from a contract's plan to Dagster's values. Not here: the contract's checks, which are asset checks like any other
(`assets.pipelines`), the columns of a materialization (`assets.metadata`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from dataflow_assets.assets.metadata import table_column
from dataflow_assets.assets.names import tag_value

if TYPE_CHECKING:
    from dataflow_assets.plan.model import ContractPlan

CONTRACT_TAG = "dataflow/contract"
VERSION_TAG = "dataflow/contract_version"


def contract_tags(contract: ContractPlan | None) -> dict[str, str]:
    """Tags by which the asset of a contract is found, such as `tag:"dataflow/contract"=orders`."""
    if contract is None:
        return {}
    return {CONTRACT_TAG: tag_value(contract.name), VERSION_TAG: str(contract.version)}


def promised(contract: ContractPlan | None) -> dict[str, Any]:
    """The contract's name, version, file and columns, known before anything is materialized."""
    if contract is None:
        return {}
    columns = [table_column(column.name, column.type, column.nullable, column) for column in contract.columns]
    return {
        "contract": contract.name,
        "contract_version": contract.version,
        "contract_mode": contract.mode,
        "contract_written_at": str(contract.place),
        "dagster/column_schema": dg.TableSchema(columns),
    }
