"""The shards of prepared data: the Parquet files of its clicks, each with whole sessions."""

from __future__ import annotations

from pathlib import Path

import duckdb

from nextclick.dataset import Dataset
from nextclick.errors import ArtifactError
from nextclick.prepare.sources import literal


def checked_shards(dataset: Dataset) -> list[Path]:
    """Return the files of a prepared data set's clicks, if all are there and whole; reads their ends only.

    Raises ArtifactError that names the shard that is missing, truncated or of another preparation.
    """
    if dataset.path is None:
        raise ArtifactError(f"{dataset.name}: these data are not on disk; open them with Dataset.load(path)")
    files = []
    with duckdb.connect() as connection:
        for name, clicks in dataset.shards:
            file = dataset.shard(name)
            if not file.is_file():
                raise ArtifactError(f"{file}: this shard is missing; put it back, or prepare the data again")
            try:
                sql = "SELECT COUNT(*) FROM read_parquet(?)"
                found = connection.execute(sql, [literal(file)]).fetchall()[0][0]
            except duckdb.Error as error:
                reason = str(error).strip().split("\n")[0]
                raise ArtifactError(
                    f"{file}: this shard is damaged or truncated ({reason}); prepare the data again"
                ) from error
            if found != clicks:
                raise ArtifactError(
                    f"{file}: expected {clicks} clicks, found {found}; prepare the data again"
                )
            files.append(file)
    return files
