"""What is asked of a part of the lake reads that part, and answers what reading all of it would."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from service.storage import delta
from service.storage.ids import id_texts, new_id
from service.storage.lake import Lake
from service.storage.rows import labels_table, predictions_table
from service.storage.view import View
from tests.batches import START_US, STEP_US, label_batch, prediction_batch

MODEL = "electricity"
PARTS, ROWS = 12, 60


def moment(step: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START_US + int(step * STEP_US))


class Grown:
    """Twelve commits of predictions, each with labels for most of its rows, some corrected later and out of order."""

    def __init__(self, root: Path) -> None:
        self.lake = Lake(root)
        generator = np.random.default_rng(3)
        self.ids: list[str] = []
        for part in range(PARTS):
            batch = prediction_batch(ROWS, first=ROWS * part)
            self.lake.append_predictions(MODEL, predictions_table([batch]), transactions={"p": part})
            names = [text.decode() for text in id_texts(batch.ids)]
            self.ids += names
            labelled = [name for name in names if generator.random() < 0.8]
            again = [name for name in self.ids if generator.random() < 0.05]
            strange = [new_id(), "ffffffff-ffff-4fff-bfff-ffffffffffff"]
            wanted = [*labelled, *again, *strange]
            observed = START_US + generator.integers(0, PARTS * ROWS * STEP_US, len(wanted))
            truth = generator.choice(["UP", "DOWN"], len(wanted)).tolist()
            labels = label_batch(wanted, truth, observed_at_us=observed.tolist(), received_at_us=START_US + part)
            self.lake.append_labels(MODEL, labels_table([labels]), transactions={"p": part})


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return Grown(tmp_path_factory.mktemp("lake"))


def plain(labels: pa.Table) -> list[dict[str, object]]:
    return sorted(labels.to_pylist(), key=lambda row: str(row["id"]))


@pytest.mark.parametrize("until", [None, moment(200), moment(-1)])
@pytest.mark.parametrize("chosen", [slice(0, 40), slice(300, 420), slice(700, 720), slice(5, 720, 97), slice(0, 0)])
def test_labels_of_some_ids_are_what_reading_all_labels_would_give(
    grown: Grown, chosen: slice, until: datetime | None
) -> None:
    ids = [*grown.ids[chosen], new_id()]
    known = grown.lake.labels_known(MODEL, observed_until=until)
    expected = known.filter(pc.is_in(known["id"], value_set=pa.array(ids)))
    found = grown.lake.labels_of(MODEL, pa.chunked_array([ids]), observed_until=until)
    assert plain(found) == plain(expected)


def test_a_label_at_either_end_of_its_file_is_found(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    ids = [new_id() for _ in range(12)]
    for part in range(3):
        some = ids[4 * part : 4 * part + 4]
        lake.append_labels(MODEL, labels_table([label_batch(some, ["UP"] * 4)]), transactions={"p": part})
    for one in ids:
        assert lake.labels_of(MODEL, pa.array([one]))["id"].to_pylist() == [one]


@pytest.mark.parametrize("after", [None, moment(100), moment(600), moment(9999)])
@pytest.mark.parametrize("until", [None, moment(650), moment(200)])
@pytest.mark.parametrize("exactly", [100_000, 0])
def test_new_labels_are_counted_as_reading_all_labels_would(
    grown: Grown,
    after: datetime | None,
    until: datetime | None,
    exactly: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.storage.queries._EXACTLY", exactly)
    known = grown.lake.labels_known(MODEL, observed_until=until)
    if after is not None:
        known = known.filter(pc.greater(known["observed_at"], pa.scalar(after, known["observed_at"].type)))
    found = grown.lake.labels_since(MODEL, after=after, until=until)
    assert found == known.num_rows if exactly else found >= known.num_rows


def test_a_lake_without_labels_knows_none(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.labels_of(MODEL, pa.array([new_id()])).num_rows == 0
    assert lake.labels_since(MODEL, after=None, until=None) == 0


def test_labels_of_a_window_open_only_the_files_around_it(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = View.read

    def counted(self: View, files: pa.Table, **further: object) -> pa.Table:
        opened.append(files.num_rows)
        return real(self, files, **further)  # type: ignore[arg-type]

    monkeypatch.setattr(View, "read", counted)
    clean = Lake(Path(grown.lake.root).parent / "clean")
    for part in range(PARTS):
        ids = grown.ids[part * ROWS : (part + 1) * ROWS]
        rows = labels_table([label_batch(ids, ["UP"] * ROWS)])
        clean.append_labels(MODEL, rows, transactions={"p": part})
    far_apart = [*grown.ids[:2], *grown.ids[-2:]]
    assert clean.labels_of(MODEL, pa.array(far_apart)).num_rows == 4
    assert opened[-1] == 2


def test_the_newest_rows_of_a_merged_file_are_read_without_its_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path)
    rows = 40_000
    batch = prediction_batch(rows, event_time_us=START_US + np.arange(rows) * 1_000_000)
    lake.append_predictions(MODEL, predictions_table([batch]), transactions={})
    read: list[int] = []
    real = View.read

    def counted(self: View, files: pa.Table, **further: object) -> pa.Table:
        found = real(self, files, **further)  # type: ignore[arg-type]
        read.append(found.num_rows)
        return found

    monkeypatch.setattr(View, "read", counted)
    for until in (None, datetime.fromtimestamp(START_US / 1e6 + 30_000, tz=UTC)):
        newest = lake.newest_rows(MODEL, 500, until)
        whole = Lake(tmp_path).read_window(MODEL, after=None, until=until)
        assert newest.equals(whole.slice(whole.num_rows - 500))
        assert read[-2] <= 2 * (1 << 14)  # two of the groups in which the file is written
        assert read[-1] == whole.num_rows


def test_the_watermark_is_found_again_from_the_new_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    future = START_US + 10_000 * STEP_US
    read: list[int] = []
    real = View.read

    def counted(self: View, files: pa.Table, **further: object) -> pa.Table:
        read.append(files.num_rows)
        return real(self, files, **further)  # type: ignore[arg-type]

    monkeypatch.setattr(View, "read", counted)
    for number in range(10):  # each file has a row from the future: statistics alone can't tell the watermark
        batch = prediction_batch(2, first=2 * number)
        times = np.array([batch.event_time_us[0], future])
        rows = predictions_table([prediction_batch(2, first=2 * number, event_time_us=times)])
        lake.append_predictions(MODEL, rows, transactions={})
        read.clear()
        assert lake.watermark(MODEL) == moment(2 * number)
        assert len(read) == 1
    assert Lake(tmp_path).watermark(MODEL) == moment(18)


def test_a_commit_after_many_others_reads_no_more_of_the_log_than_the_first(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    folder = lake._folder("predictions", MODEL)
    rows = predictions_table([prediction_batch(2)])
    for number in range(3 * delta._OPENED_ANEW):
        lake.append_predictions(MODEL, rows, transactions={"s": number})
        assert folder._table is None or folder._table.version() - folder._opened_at < delta._OPENED_ANEW
    reader = Lake(tmp_path)
    assert reader.committed(MODEL, "predictions", "s") == {"s": 3 * delta._OPENED_ANEW - 1}
    log = Path(tmp_path) / "predictions" / MODEL / "_delta_log"
    assert len(list(log.glob("*.checkpoint.parquet"))) >= 2
