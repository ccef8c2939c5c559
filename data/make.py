"""Make the Parquet files of this folder from the published CSV files: ``python data/make.py FOLDER``.

Whoever uses Retrue never needs this: the results are committed. FOLDER holds the two inputs as they were published,
with a header line and these columns, in this order:

``electricity.csv``
    date, day, period, nswprice, nswdemand, vicprice, vicdemand, transfer, class: 45,312 rows, oldest first.
``bike_hours.csv``
    instant, dteday (yyyymmdd), season, yr, mnth, hr, holiday, weekday, workingday, weathersit, temp, atemp, hum,
    windspeed, casual, registered, cnt: 17,379 rows, oldest first.

The same input and the same version of pyarrow give the same bytes.
"""

import hashlib
import sys
from collections.abc import Hashable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent

ELECTRICITY: dict[Hashable, str] = {
    "date": "float64",
    "day": "int64",
    "period": "float64",
    "nswprice": "float64",
    "nswdemand": "float64",
    "vicprice": "float64",
    "vicdemand": "float64",
    "transfer": "float64",
    "class": "str",
}
ELECTRICITY_ROWS = 45_312
ELECTRICITY_START = pd.Timestamp("1996-05-07T00:00", tz="UTC")

BIKES: dict[Hashable, str] = {
    "instant": "int64",
    "dteday": "str",
    "season": "int64",
    "yr": "int64",
    "mnth": "int64",
    "hr": "int64",
    "holiday": "int64",
    "weekday": "int64",
    "workingday": "int64",
    "weathersit": "int64",
    "temp": "float64",
    "atemp": "float64",
    "hum": "float64",
    "windspeed": "float64",
    "casual": "int64",
    "registered": "int64",
    "cnt": "int64",
}
BIKES_ROWS = 17_379


def read(path: Path, columns: dict[Hashable, str], rows: int) -> pd.DataFrame:
    """Read one published file, or stop when it is not the file that is documented above."""
    if not path.is_file():
        sys.exit(f"{path} does not exist: give the folder that holds electricity.csv and bike_hours.csv")
    found = list(pd.read_csv(path, nrows=0).columns)
    if found != list(columns):
        sys.exit(f"{path}: expected the columns {', '.join(map(str, columns))}; found {', '.join(found)}")
    frame = pd.read_csv(path, dtype=columns)
    if len(frame) != rows:
        sys.exit(f"{path}: expected {rows} rows, found {len(frame)}")
    if frame.isna().to_numpy().any():
        sys.exit(f"{path}: expected no missing value")
    return frame


def electricity(raw: pd.DataFrame) -> pd.DataFrame:
    """Give every half hour its event time; drop `date`, which is a normalised stand-in for it."""
    labels = set(raw["class"])
    if labels != {"UP", "DOWN"}:
        sys.exit(f"electricity.csv: expected the classes UP and DOWN, found {sorted(labels)}")
    frame = raw.drop(columns="date")
    frame.insert(0, "timestamp", pd.date_range(ELECTRICITY_START, periods=len(frame), freq="30min"))
    return frame


def bikes(raw: pd.DataFrame) -> pd.DataFrame:
    """Give every hour its event time; drop the row number and the two counts that add up to the target."""
    frame = raw.drop(columns=["instant", "dteday", "casual", "registered"])
    day = pd.to_datetime(raw["dteday"], format="%Y%m%d", utc=True)
    frame.insert(0, "timestamp", day + pd.to_timedelta(raw["hr"], unit="h"))
    if not (frame["timestamp"].is_monotonic_increasing and frame["timestamp"].is_unique):
        sys.exit("bike_hours.csv: expected one row per hour, oldest first")
    return frame.astype({"holiday": "bool", "workingday": "bool"})


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write one file and say what came out."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    at = table.schema.get_field_index("timestamp")
    table = table.set_column(at, "timestamp", table["timestamp"].cast(pa.timestamp("us", tz="UTC")))
    # The metadata holds library versions: without it, only the data decides the bytes.
    table = table.replace_schema_metadata(None)
    pq.write_table(table, path, compression="zstd", compression_level=19, row_group_size=len(frame))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path.name}  {len(frame)} rows  {path.stat().st_size} bytes  sha256 {digest}")


def main() -> None:
    """Make both files from the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python data/make.py FOLDER")
    folder = Path(sys.argv[1])
    write(electricity(read(folder / "electricity.csv", ELECTRICITY, ELECTRICITY_ROWS)), HERE / "electricity.parquet")
    write(bikes(read(folder / "bike_hours.csv", BIKES, BIKES_ROWS)), HERE / "bikes.parquet")


if __name__ == "__main__":
    main()
