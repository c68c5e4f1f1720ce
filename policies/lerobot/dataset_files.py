"""Whether a LeRobotDataset in a folder is whole, asked of its files alone: lerobot asks the hub for what is missing."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlamem.core.json_files import read_json_map
from vlamem.policies.lerobot.source import LFS_POINTER

INFO = Path("meta") / "info.json"


class DatasetError(ValueError):
    """A dataset that cannot be read or used; the message names what was found, what was expected and the mend."""


def is_dataset(name: str | Path) -> bool:
    """Whether `name` is the folder of a LeRobotDataset of this format."""
    return (Path(name) / INFO).is_file()


def read_info(folder: Path) -> dict[str, Any]:
    """The dataset's own description. Raises DatasetError for a broken one."""
    _check_no_pointer(folder, folder / INFO)
    try:
        return read_json_map(folder / INFO)
    except ValueError as error:
        raise DatasetError(f"{folder / INFO} is not JSON ({error}): copy the dataset again") from error


def check_files(folder: Path) -> None:
    """Raises DatasetError naming the first file that is missing, cut short or a Git LFS pointer, or rows that are not
    those that the dataset's description counts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = read_info(folder)
    episodes, frames = int(info.get("total_episodes", 0)), int(info.get("total_frames", 0))
    if not episodes:
        raise DatasetError(f"{folder} has no episode: its recording was not finalised, or nothing was recorded")
    tables = sorted(folder.glob("meta/episodes/*/*.parquet"))
    for what, found in (
        ("meta/tasks.parquet", [p for p in [folder / "meta" / "tasks.parquet"] if p.is_file()]),
        ("meta/episodes", tables),
        ("data", sorted(folder.glob("data/*/*.parquet"))),
    ):
        if not found:
            raise DatasetError(
                f"{folder} has no {what}, and {INFO} counts {episodes} episodes: its recording was not finalised "
                "(dataset.finalize()), or it was copied in part"
            )
        for path in found:
            _check_no_pointer(folder, path)
            try:
                pq.read_metadata(path)
            except (pa.ArrowInvalid, OSError) as error:
                raise DatasetError(
                    f"{path.relative_to(folder)} of {folder} is no whole file ({str(error).splitlines()[0][:120]}): "
                    "its recording was not finalised (dataset.finalize()), or it was copied in part"
                ) from error
    columns = ["episode_index", "dataset_from_index", "dataset_to_index"]
    rows = sorted((row for path in tables for row in _rows(path, columns)), key=lambda row: row["episode_index"])
    if [row["episode_index"] for row in rows] != list(range(episodes)):
        raise DatasetError(
            f"meta/episodes of {folder} describes {len(rows)} episodes, {INFO} counts {episodes}: its recording was "
            "not finalised (dataset.finalize()), or it was copied in part"
        )
    counted: dict[int, int] = {}
    for path in sorted(folder.glob("data/*/*.parquet")):
        for number in pq.read_table(path, columns=["episode_index"])["episode_index"].to_pylist():
            counted[number] = counted.get(number, 0) + 1
    for row in rows:
        expected = row["dataset_to_index"] - row["dataset_from_index"]
        found_rows = counted.get(row["episode_index"], 0)
        if found_rows != expected:
            raise DatasetError(
                f"episode {row['episode_index']} of {folder} has {found_rows} rows under data, and meta/episodes "
                f"counts {expected}: its recording was not finalised (dataset.finalize()), or it was copied in part"
            )
    if frames and sum(counted.values()) != frames:
        raise DatasetError(
            f"{folder} has {sum(counted.values())} rows under data, and {INFO} counts {frames}: copy it again"
        )
    _check_videos(folder, info, tables)


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path, columns=list(columns)).to_pylist()
    return rows


def _check_videos(folder: Path, info: dict[str, Any], tables: Sequence[Path]) -> None:
    keys = [key for key, feature in info.get("features", {}).items() if feature.get("dtype") == "video"]
    for path in sorted(set(_videos(info, keys, tables))):
        video = folder / path
        if not video.is_file():
            raise DatasetError(
                f"{folder} has no {path}, which meta/episodes names: its recording was not finalised "
                "(dataset.finalize()), or it was copied in part"
            )
        _check_no_pointer(folder, video)


def _videos(info: dict[str, Any], keys: Sequence[str], tables: Sequence[Path]) -> Iterator[str]:
    """Paths of the videos that the episodes name."""
    for key in keys:
        chunk, file = f"videos/{key}/chunk_index", f"videos/{key}/file_index"
        for table in tables:
            for row in _rows(table, [chunk, file]):
                yield str(info["video_path"]).format(video_key=key, chunk_index=row[chunk], file_index=row[file])


def _check_no_pointer(folder: Path, path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise DatasetError(
                    f"{path.relative_to(folder)} of {folder} is a Git LFS pointer and not the file: fetch the files "
                    "with 'git lfs pull'"
                )
