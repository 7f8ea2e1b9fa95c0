"""Which type a column needs when wider values arrive: the least one that holds the old values and the new ones exactly.

Here: Arrow types only. Not here: what a database calls them, whether it can change a column in place (`connectors`).
"""

from __future__ import annotations

import pyarrow as pa

from dataflow_assets.storage.casts import plain_type

_MOST_DIGITS = 76
_DIGITS = {"int8": 3, "int16": 5, "int32": 10, "int64": 19, "uint8": 3, "uint16": 5, "uint32": 10, "uint64": 20}


def widened(held: pa.DataType, incoming: pa.DataType) -> pa.DataType | None:
    """The type that a column of type `held` needs for values of type `incoming`; None when it stays as it is.

    Integers become wider integers, floats wider floats, decimals get digits on either side of the point. Everything else stays, and
    each value decides: a date becomes no timestamp, a number no text, an integer no float, because that changes what queries mean.
    """
    held, incoming = plain_type(held), plain_type(incoming)
    if pa.types.is_integer(held) and pa.types.is_integer(incoming):
        return _wider_integer(held, incoming)
    if pa.types.is_floating(held) and pa.types.is_floating(incoming):
        return incoming if incoming.bit_width > held.bit_width else None
    if pa.types.is_decimal(held) and (found := _as_decimal(incoming)) is not None:
        return _wider_decimal(held, *found, is_integer=pa.types.is_integer(incoming))
    return None


def _wider_integer(held: pa.DataType, incoming: pa.DataType) -> pa.DataType | None:
    """Between signed and unsigned the next signed one; none holds both signed and 64 bits without sign."""
    if _holds(held, incoming):
        return None
    signs = ("u", "") if pa.types.is_unsigned_integer(held) else ("",)
    kinds = [pa.type_for_alias(f"{sign}int{bits}") for sign in signs for bits in (8, 16, 32, 64)]
    return next((kind for kind in kinds if _holds(kind, held) and _holds(kind, incoming)), None)


def _holds(kind: pa.DataType, other: pa.DataType) -> bool:
    if pa.types.is_unsigned_integer(kind):
        return bool(pa.types.is_unsigned_integer(other)) and other.bit_width <= kind.bit_width
    return bool(other.bit_width + pa.types.is_unsigned_integer(other) <= kind.bit_width)


def _as_decimal(kind: pa.DataType) -> tuple[int, int] | None:
    """Digits before and after the point."""
    if pa.types.is_decimal(kind):
        return kind.precision - kind.scale, max(kind.scale, 0)
    digits = _DIGITS.get(str(kind))
    return None if digits is None else (digits, 0)


def _wider_decimal(held: pa.DataType, whole: int, scale: int, *, is_integer: bool) -> pa.DataType | None:
    """A column with a fraction is not widened for an integer, whose type tells nothing of how large its values are."""
    own_whole, own_scale = held.precision - held.scale, max(held.scale, 0)
    if is_integer and own_scale:
        return None
    whole, scale = max(whole, own_whole), max(scale, own_scale)
    if (whole, scale) == (own_whole, own_scale) or whole + scale > _MOST_DIGITS:
        return None
    return pa.decimal128(whole + scale, scale) if whole + scale <= 38 else pa.decimal256(whole + scale, scale)
