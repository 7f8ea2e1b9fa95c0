"""Rows as text and back: the very same Arrow values, whatever their types."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.batches import checksum_rows_of
from dataflow_assets.storage.row_text import rows_as_text, rows_from_text, schema_as_text, schema_from_text, values_as_text
