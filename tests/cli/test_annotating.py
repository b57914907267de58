"""`maskadapter annotate` in parts: whoever does them, in whatever order, the result is that of one process."""

import io
import shutil
import sys
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
from PIL import Image

from hf_maskadapter import cli
from hf_maskadapter.exchange import read_results
from hf_maskadapter.exchange.journals import read_records
from hf_maskadapter.files import folder_lock

LABELS = "cat, sky, grass"


@pytest.fixture
def folder(tmp_path, picture, monkeypatch) -> Path:
    """Seven pictures of three sizes, in two folders."""
    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    for number in range(7):
        path = tmp_path / "pictures" / ("sub" if number % 3 == 0 else "") / f"{number}.png"
        picture.rotate(40 * number).resize([(60, 45), (40, 64), (64, 64)][number % 3]).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def annotate(folder, tiny_model_dir):
    def run(*arguments, source="pictures", output: str = "out", of="coco-instance") -> int:
        options = ["--model", tiny_model_dir, "--output", output, "--device", "cpu", "--labels", LABELS, "--format", of]
        return cli.main(["annotate", *map(str, [source, *arguments, *options])])

    return run


def contents(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("of", ["coco-instance", "label-map", "parquet"])
def test_parts_by_hand_make_what_one_process_makes(annotate, of, capsys):
    assert annotate(output="one", of=of) == 0
    for index in (2, 0, 1):
        assert annotate("--shard", f"{index}/3", of=of) == 0
    assert contents("out") == contents("one")
    assert "7 pictures segmented" in capsys.readouterr().out.splitlines()[-1 if of != "cvat" else -2]


def test_batches_are_composed_alike_however_many_parts_there_are(annotate):
    assert annotate("--batch-size", 2, output="one") == 0
    for index in range(2):
        assert annotate("--batch-size", 2, "--shard", f"{index}/2") == 0
    assert contents("out") == contents("one")


def test_stopped_parts_are_gone_on_with_by_another_number(annotate, monkeypatch):
    assert annotate(output="one") == 0
    assert annotate("--shard", "1/4") == 0
    journal = Path("out/parts/00001-of-00004/progress.jsonl")
    journal.write_bytes(journal.read_bytes()[:-20])  # stopped while it wrote its last line
    for index in range(2):
        assert annotate("--shard", f"{index}/2") == 0
    assert contents("out") == contents("one")


def test_one_process_goes_on_with_what_parts_have_done(annotate, capsys):
    assert annotate(output="one") == 0
    assert annotate("--shard", "0/2") == 0
    capsys.readouterr()
    assert annotate() == 0
    assert "3 pictures segmented" in capsys.readouterr().out
    assert contents("out") == contents("one")


def test_what_parts_have_done_can_be_assembled_before_all_have(annotate, capsys):
    assert annotate("--shard", "1/2") == 0
    assert annotate("--merge") == 0
    assert len(list(read_results("out", "coco-instance").results)) == 3
    assert annotate() == 0
    assert len(list(read_results("out", "coco-instance").results)) == 7


def test_the_launchers_variables_make_a_part(annotate, monkeypatch, capsys):
    assert annotate(output="one") == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "10":
        monkeypatch.setenv("RANK", rank)
        assert annotate() == 0
    assert contents("out") == contents("one")
    assert annotate("--shard", "0/2") == 2
    assert "leave out --processes, --shard" in capsys.readouterr().err


def test_of_processes_that_a_launcher_started_the_last_alone_tells_of_damaged_pictures(annotate, monkeypatch, capsys):
    names = sorted(path.relative_to("pictures").as_posix() for path in Path("pictures").rglob("*.png"))
    Path("pictures", names[0]).write_bytes(b"damaged")  # it is of part 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    statuses = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        statuses.append(annotate())
    assert statuses == [0, 1]
    assert names[0] in capsys.readouterr().err
    assert len(list(read_records(Path("out/progress.jsonl")))) == 6


def test_second_run_of_a_part_is_refused(annotate, capsys):
    with folder_lock("out/parts/00000-of-00002", "annotate"):
        assert annotate("--shard", "0/2") == 2
        assert "is in use" in capsys.readouterr().err
        assert annotate() == 2
    assert "is in use" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_of_one_command(annotate):
    assert annotate(output="one") == 0
    assert annotate("--processes", 2, "--overwrite") == 0
    assert contents("out") == contents("one")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--shard", "2/2"), "0/4 to 3/4"),
        (("--shard", "0/2", "--merge"), "at most one"),
        (("--shard", "0/2", "--overwrite"), "--overwrite"),
        (("--workers", "2"), "--engine ray"),
        (("--merge",), "no finished pictures"),
        (("--embeddings", "--task", "semantic"), "--embeddings"),
    ],
)
def test_mistakes_get_one_line(annotate, capsys, arguments, part):
    with pytest.raises(SystemExit) as stopped:
        sys.exit(annotate(*arguments))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert part in line
    assert not Path("out").exists()


def encoded(path: Path) -> bytes:
    file = io.BytesIO()
    Image.open(path).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_files_of_many_pictures_are_annotated_in_parts(annotate, kind):
    paths = sorted(Path("pictures").rglob("*.png"))
    if kind == "parquet":
        rows = {
            "image": [{"bytes": encoded(path), "path": None} for path in paths],
            "id": [path.stem for path in paths],
        }
        features = datasets.Features({"image": datasets.Image(), "id": datasets.Value("string")})
        datasets.Dataset.from_dict(rows, features=features).to_parquet("many.parquet")
        source, options = "many.parquet", ()
    else:
        import tarfile

        with tarfile.open("many.tar", "w") as tar:
            for path in paths:
                tar.add(path, f"{path.stem}.png")
        source, options = "many.tar", ("--image-column", "png", "--id-column", "__key__", "--streaming")
    assert annotate(*options, source=source, output="one") == 0
    for index in range(2):
        assert annotate(*options, "--shard", f"{index}/2", source=source) == 0
    assert contents("out") == contents("one")
    names = [result.picture for result in read_results("one", "coco-instance").results]
    assert sorted(names) == sorted(f"{path.stem}.png" for path in paths)


def test_embeddings_lie_beside_the_results_in_any_format(annotate):
    assert annotate("--embeddings", "--task", "panoptic", "--threshold", 0, of="coco-panoptic") == 0
    rows = pyarrow.parquet.read_table("out/embeddings.parquet").to_pylist()
    found = [(result.picture, len(result)) for result in read_results("out", "coco-panoptic").results]
    assert [(row["file_name"], row["segment"]) for row in rows] == [
        (name, number) for name, count in found for number in range(count)
    ]
    for row in rows:
        assert sum(value * value for value in row["embedding"]) == pytest.approx(1, abs=1e-5)
    shutil.rmtree("out")
    for index in range(2):
        arguments = ("--embeddings", "--task", "panoptic", "--threshold", 0, "--shard", f"{index}/2")
        assert annotate(*arguments, of="coco-panoptic") == 0
    assert pyarrow.parquet.read_table("out/embeddings.parquet").to_pylist() == rows
