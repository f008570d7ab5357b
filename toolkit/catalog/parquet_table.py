"""A Parquet file as columns, through pyarrow.

Knows nothing of items beyond that `id` and `title` (or a product feed's names for them) must be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from gcrs.toolkit.catalog.feed_names import recognise
from gcrs.toolkit.errors import DataError


def parquet_columns(path: Path, stream: IO[bytes]) -> tuple[list[int], dict[str, list[Any]]]:
    """Row numbers from 1, and the values of every column; `id` and `title` are so named whatever their case.

    Dates and times become ISO texts, decimals numbers. Raises DataError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = pq.ParquetFile(stream)
        names = source.schema_arrow.names
        by_fold = {name.casefold(): name for name in reversed(names)}
        missing = [name for name in ("id", "title") if name not in by_fold]
        if missing and not recognise(names):
            found = ", ".join(names)[:200] or "(none)"
            raise DataError(f"{path}: found the columns {found}, expected also {' and '.join(missing)}.")
        for kind in source.schema_arrow:
            if pa.types.is_struct(kind.type) or pa.types.is_map(kind.type) or _is_binary(pa, kind.type):
                raise DataError(
                    f"{path}, column {kind.name!r}: found {kind.type}, expected texts, numbers, dates or lists."
                )
        if len(set(names)) < len(names):
            raise DataError(f"{path}: a column name appears twice, expected each once.")
        content = source.read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is a broken or truncated Parquet file: {str(error).splitlines()[0].rstrip('.')}.",
            hint="Write or fetch it again.",
        ) from error
    keys = {by_fold[key]: key for key in ("id", "title") if key in by_fold}
    columns = {keys.get(name, name): _plain(pa, content.column(name)) for name in names}
    return list(range(1, content.num_rows + 1)), columns


def _is_binary(pa: Any, kind: Any) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _plain(pa: Any, column: Any) -> list[Any]:
    """Python values of a column, in the types that `type_of_values` knows."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    values = column.to_pylist()
    if pa.types.is_temporal(kind):
        return [value if value is None else value.isoformat() for value in values]
    return values
