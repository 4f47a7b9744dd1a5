"""Tables that harm who reads them. One function each."""

from __future__ import annotations

import io

import pyarrow as pa


def arrow_with_a_length_below_zero() -> bytes:
    """An Arrow stream whose offsets go back: unchecked, reading it ends the process or worse."""
    table = pa.table({"image": [b"abcd", b"efgh"]})
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, 4, 8))
    broken = offsets.replace(b"\x04", b"\x64")
    return buffer.getvalue().replace(offsets, broken)
