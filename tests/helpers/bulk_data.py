"""The same handwritten digits as a folder, CSV, Parquet, Arrow and WebDataset. Real files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handwritten_digits import LABELS, write_digits

FORMS = ("folder", "csv", "parquet-paths", "parquet-bytes", "arrow", "tar", "tgz", "datasets")


def write_source(root: Path, form: str, count: int = 4) -> Path:
    """`count` digits of each class from number 150 on, in one form, in the same order."""
    photos = root / "photos"
    if not photos.exists():
        write_digits(photos, 150, count)
    paths = [photos / label / f"{150 + i}.png" for label in LABELS for i in range(count)]
    makers = {
        "csv": _csv,
        "parquet-paths": _parquet_paths,
        "parquet-bytes": _parquet_bytes,
        "arrow": _arrow,
        "tar": _tar,
        "tgz": _tar,
        "datasets": _datasets,
    }
    return photos if form == "folder" else makers[form](root / f"all-{form}", paths)


def _csv(out: Path, paths: Sequence[Path]) -> Path:
    out = out.with_suffix(".csv")
    lines = [f"{path.relative_to(out.parent)},{path.parent.name}" for path in paths]
    out.write_text("\n".join(["filename,class", *lines, ""]))
    return out


def _parquet_paths(out: Path, paths: Sequence[Path]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = out.with_suffix(".parquet")
    names = [str(path.relative_to(out.parent)) for path in paths]
    pq.write_table(pa.table({"file_name": names, "label": [p.parent.name for p in paths]}), out)
    return out


def _parquet_bytes(out: Path, paths: Sequence[Path]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = out.with_suffix(".parquet")
    data = [path.read_bytes() for path in paths]
    table = pa.table({"image": data, "label": [p.parent.name for p in paths]})
    pq.write_table(table, out, row_group_size=5)
    return out


def _features(paths: Sequence[Path]) -> Any:
    """The table that Hugging Face `datasets` makes of images with labels."""
    import pyarrow as pa

    info = {"info": {"features": {"label": {"names": list(LABELS), "_type": "ClassLabel"}}}}
    rows = [
        {
            "image": {"bytes": path.read_bytes(), "path": path.name},
            "label": LABELS.index(path.parent.name),
        }
        for path in paths
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    return pa.Table.from_pylist(rows, schema.with_metadata({"huggingface": json.dumps(info)}))


def _arrow(out: Path, paths: Sequence[Path]) -> Path:
    import pyarrow as pa

    out = out.with_suffix(".arrow")
    table = _features(paths)
    with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return out


def _datasets(out: Path, paths: Sequence[Path]) -> Path:
    """What `save_to_disk` writes: streams, and JSON beside them."""
    import pyarrow as pa

    out.mkdir()
    half = len(paths) // 2
    for number, part in enumerate((paths[:half], paths[half:])):
        table = _features(part)
        name = out / f"data-0000{number}-of-00002.arrow"
        with pa.OSFile(str(name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    (out / "state.json").write_text("{}")
    (out / "dataset_info.json").write_text("{}")
    return out


def _tar(out: Path, paths: Sequence[Path]) -> Path:
    out = out.with_suffix(".tar" if out.name.endswith("tar") else ".tgz")
    with tarfile.open(out, "w" if out.suffix == ".tar" else "w:gz") as tar:
        for number, path in enumerate(paths):
            label = path.parent.name.encode()
            add(tar, f"{number:06d}.cls", label)
            add(tar, f"{number:06d}.png", path.read_bytes())
    return out


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
