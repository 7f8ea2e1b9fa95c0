"""The smallest and largest value of a column, and the lengths of its texts, by the cheapest exact way.

Here: one array in, its ends or its lengths out. Not here: which rules ask (`checks._facts`), what a limit means (`checks._literals`).
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataflow_assets.batches import null_mask

_DIGITS = 18
"""Decimals of so many digits fit 64 bits without their scale."""
_EXACT = Context(prec=_DIGITS + 1)
"""The thread's own context may be anything: a user's transform sets it too."""


def bounds_of(values: pa.Array) -> tuple[Any, Any, bool]:
    """Smallest and largest value (None without any), and whether there is a NaN, which counts as neither."""
    numbers = _numbers(values) if values.null_count < len(values) else None
    if numbers is not None:
        low, high = numbers.min().item(), numbers.max().item()
        if low == low:  # a NaN takes the place of both
            return (_scaled(low, values.type), _scaled(high, values.type), False)
    ends = pc.min_max(values)
    nan = pa.types.is_floating(values.type) and bool(pc.any(pc.is_nan(values)).as_py())
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return (None, None, nan) if low is None or low != low else (low, high, nan)


def _scaled(number: Any, kind: pa.DataType) -> Any:
    return Decimal(number).scaleb(-kind.scale, _EXACT) if pa.types.is_decimal(kind) else number


def _numbers(values: pa.Array) -> NDArray[Any] | None:
    """The numbers as numpy has them, decimals without their scale, a null as the first that is none; None for other types.

    Measured at 16384 values with nulls: 20 us, and 90 to 110 us by Arrow's min_max.
    """
    kind, place = values.type, slice(values.offset, values.offset + len(values))
    numbers: NDArray[Any]
    if pa.types.is_integer(kind) or kind in (pa.float32(), pa.float64()):
        letter = "f" if pa.types.is_floating(kind) else "i" if pa.types.is_signed_integer(kind) else "u"
        numbers = np.frombuffer(values.buffers()[1], dtype=f"{letter}{kind.bit_width // 8}")[place]
    elif pa.types.is_decimal128(kind) and kind.precision <= _DIGITS and kind.scale >= 0:
        numbers = np.frombuffer(values.buffers()[1], dtype=np.int64)[::2][place]
    else:
        return None
    if values.null_count:
        nulls = null_mask(values)
        numbers = numbers.copy()
        numbers[nulls] = numbers[np.argmin(nulls)]
    return numbers


def lengths_of(column: pa.Array) -> pa.Array:
    """The lengths of a column of text (characters) or bytes; null for null."""
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return (pc.utf8_length if text and not _is_ascii(column) else pc.binary_length)(column)


def _is_ascii(column: pa.Array) -> bool:
    """Whether every byte is a character of its own. Measured for texts of 36: this and their bytes 15 us, counting characters 160 us."""
    _, raw, data = column.buffers()
    if not len(column) or data is None:
        return True
    offsets = np.frombuffer(raw, dtype=np.int64 if pa.types.is_large_string(column.type) else np.int32)
    content = np.frombuffer(data, dtype=np.int8)[offsets[column.offset] : offsets[column.offset + len(column)]]
    return not len(content) or bool(content.min() >= 0)
