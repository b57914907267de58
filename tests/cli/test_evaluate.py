"""`maskadapter evaluate`: from a command line to results, a report, pictures and a model card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, cli
from hf_maskadapter.evaluation import load_predictor
from hf_maskadapter.evaluation.report import without_nan
from hf_maskadapter.files import folder_lock
from hf_maskadapter.hub.card_results import update_model_card
from hf_maskadapter.provenance import model_hash
from support.data_samples import encode, labels, picture, save
from support.project_scripts import SCRIPTS
from support.two_processes import free_port

ROOT = SCRIPTS.parent
SHARED = os.environ.get("MASKADAPTER_SHARED")


@pytest.fixture(scope="module")
def evaluate():
    """The command."""
    return lambda *arguments: cli.main(["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Five pictures with label maps of three classes, one of them larger than the others."""
    root = tmp_path_factory.mktemp("pictures")
    for index in range(5):
        width = 24 if index == 3 else 16
        save(root / "val" / "images" / f"p{index}.png", picture(index, width=width))
        save(root / "val" / "labels" / f"p{index}.png", labels(index, width=width))
    (root / "classes.txt").write_text("sky\nroad\ncat\n")
    return root


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_folder_is_evaluated_and_everything_is_written(evaluate, folder, tiny_model_dir, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--model", tiny_model_dir, "--dataset", folder, "--split", "val", "--output_dir", out]
    methods = ["--mask_embedding", "adapter", "pooling-area", "crop", "--num_worst", 2]
    assert evaluate(*options, *methods) == 0
    printed = capsys.readouterr().out
    assert [line.split(" ")[1] for line in printed.splitlines()[2:5]] == ["adapter", "pooling-area", "crop"]
    assert "5 samples, 5 of them in this run" in printed

    results = read(out / "results.json")
    assert list(results["results"]) == ["adapter", "pooling-area", "crop"]
    assert results["num_samples"] == 5
    assert {"mean_iou", "mean_iou_seen", "mean_iou_unseen"} <= results["results"]["crop"]["metrics"].keys()
    assert [row["name"] for row in results["results"]["crop"]["per_class"]] == ["sky", "road", "cat"]
    assert [row["seen"] for row in results["results"]["crop"]["per_class"]] == [True, False, True]
    assert results["model"]["image_processor"]["size"] == {"shortest_edge": 64, "longest_edge": 128}
    assert {"hf-maskadapter", "torch", "transformers", "pillow"} <= results["versions"].keys()
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
    assert results["model"]["hash"] == model_hash(model)
    report = (out / "report.md").read_text()
    assert "## pooling-area" in report
    assert "| road | no |" in report
    assert len(list((out / "worst").glob("*.jpg"))) == len(results["worst"]) == 2
    assert not (out / "progress").exists()

    assert evaluate(*options, *methods) == 2
    assert "holds results" in capsys.readouterr().err
    assert evaluate(*options, *methods, "--overwrite", "--batch_size", 1, "--num_workers", 1) == 0
    assert read(out / "results.json")["results"] == results["results"]


def test_a_second_run_on_the_output_folder_is_refused(evaluate, folder, tiny_model_dir, tmp_path, capsys):
    with folder_lock(tmp_path / "out", "evaluate"):
        assert evaluate("--model", tiny_model_dir, "--dataset", folder, "--output_dir", tmp_path / "out") == 2
    assert f"out is in use: process {os.getpid()}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_evaluation_can_be_called_by_its_options_names(folder, tiny_model_dir, tmp_path):
    from hf_maskadapter.cli.evaluation import run_evaluation

    summary = run_evaluation(
        model=str(tiny_model_dir), dataset=str(folder), split="val", mask_embedding=("pooling",), output_dir=tmp_path
    )
    assert "| pooling |" in summary
    assert list(read(tmp_path / "results.json")["results"]) == ["pooling"]
    with pytest.raises(TypeError, match="no option 'batchsize'"):
        run_evaluation(model="m", dataset="d", batchsize=2)


def test_an_interrupted_command_goes_on(evaluate, folder, tiny_model_dir, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    options = ["--model", tiny_model_dir, "--dataset", folder, "--output_dir", out, "--save_every", 1]
    forward, calls = MaskAdapterForOpenVocabularySegmentation.forward, []

    def interrupted(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MaskAdapterForOpenVocabularySegmentation, "forward", interrupted)
    assert evaluate(*options) == 130
    assert not (out / "results.json").exists()
    capsys.readouterr()
    assert evaluate(*options) == 0
    assert "5 samples, 2 of them in this run" in capsys.readouterr().out
    whole = tmp_path / "whole"
    assert evaluate("--model", tiny_model_dir, "--dataset", folder, "--output_dir", whole) == 0
    assert read(whole / "results.json")["results"] == read(out / "results.json")["results"]


def test_scenes_of_the_miniature_world_need_no_data(evaluate, tiny_model_dir, tmp_path, capsys):
    command = ["--model", tiny_model_dir, "--dataset", "scenes", "--max_samples", 3, "--output_dir", tmp_path / "out"]
    assert evaluate(*command, "--task", "semantic", "panoptic", "--num_worst", 1) == 0
    results = read(tmp_path / "out" / "results.json")
    assert results["num_samples"] == 3
    assert results["split"] == "test"
    assert results["dataset"]["name"] == "miniature scenes, split 'test', seed 0"
    assert evaluate(*command, "--vocabulary", "sky", "--overwrite") == 2
    assert "have their own classes" in capsys.readouterr().err


def test_annotated_masks_give_the_upper_bound(evaluate, folder, tiny_model_dir, capsys):
    command = ["--model", tiny_model_dir, "--dataset", folder, "--masks", "annotation", "--mask_embedding", "pooling"]
    assert evaluate(*command) == 0
    assert "segments right" in capsys.readouterr().out


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    """An imitation of Pascal VOC 2012 as downloaded."""
    root = tmp_path_factory.mktemp("voc")
    base = root / "VOCdevkit" / "VOC2012"
    for index in range(2):
        save(base / "JPEGImages" / f"{index}.jpg", picture(index))
        save(base / "SegmentationClass" / f"{index}.png", np.array([1, 20, 255], np.uint8)[labels(index)])
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("0\n1\n")
    return root


def test_a_benchmark_is_measured_beside_published_numbers(evaluate, voc, tiny_model_dir, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--model", tiny_model_dir, "--benchmark", "pascal_voc_20", "--data_dir", voc]
    assert evaluate(*command, "--output_dir", out) == 0
    printed = capsys.readouterr().out
    assert "| published: FC-CLIP-L with Mask-Adapter | 95.5 |" in printed
    results = read(out / "results.json")
    assert results["benchmark"] == "pascal_voc_20"
    assert results["split"] == "validation"
    assert results["model"]["post_processing"]["resize_scores"] is True
    assert len(results["vocabulary"]["classes"]) == 20
    synonyms = tmp_path / "synonyms.txt"
    names = ["background", *(entry["name"] for entry in results["vocabulary"]["classes"])]
    synonyms.write_text("".join(f"{index}:{name},any {name}\n" for index, name in enumerate(names)))
    assert evaluate(*command, "--vocabulary", synonyms, "--max_samples", 1, "--no-resize_scores") == 0
    assert "published" not in capsys.readouterr().out  # one sample is not the benchmark


def test_a_benchmark_may_set_the_size_of_the_input_and_the_user_may_set_another(evaluate, tiny_model_dir, tmp_path):
    place = "val/aachen/aachen_0_19"
    save(tmp_path / "leftImg8bit" / f"{place}_leftImg8bit.png", picture(0))
    save(tmp_path / "gtFine" / f"{place}_gtFine_labelIds.png", np.array([7, 26, 1], np.uint8)[labels(0)])
    command = ["--model", tiny_model_dir, "--benchmark", "cityscapes_19", "--data_dir", tmp_path]
    for options, size in (
        ([], {"shortest_edge": 1024, "longest_edge": 2560}),
        (["--longest_edge", 96], {"shortest_edge": 64, "longest_edge": 96}),
    ):
        out = tmp_path / f"out{len(options)}"
        assert evaluate(*command, *options, "--output_dir", out, "--num_worst", 0) == 0
        assert read(out / "results.json")["model"]["image_processor"]["size"] == size


def test_the_model_card_gets_the_results_and_keeps_the_rest(evaluate, folder, tiny_model_dir, tmp_path):
    from huggingface_hub import ModelCard

    card = tmp_path / "README.md"
    card.write_text("---\nlicense: apache-2.0\n---\n# My model\n\nText.\n")
    command = ["--model", tiny_model_dir, "--dataset", folder, "--split", "val", "--model_card", card]
    for _ in range(2):
        assert evaluate(*command) == 0
        written = ModelCard.load(card)
        assert written.data.license == "apache-2.0"
        assert "# My model\n\nText." in written.text
        (result,) = written.data.eval_results
        assert (result.metric_type, result.dataset_split) == ("mean_iou", "val")
    update_model_card(card, "m", "other", "other", None, {"one": {"metrics": {"pq": 0.123}}})
    values = {entry.metric_type: entry.metric_value for entry in ModelCard.load(card).data.eval_results}
    assert values["pq"] == 12.3
    assert len(values) == 2
    update_model_card(tmp_path / "new.md", "m", "other", "other", None, {"one": {"metrics": {"ap": 0.5}}})
    assert ModelCard.load(tmp_path / "new.md").data.model_name == "m"


def test_the_benchmarks_are_listed(evaluate, capsys):
    assert evaluate("--list") == 0
    printed = capsys.readouterr().out
    assert "pascal_context_459" in printed
    assert "trainval_merged.json" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model", "m"],
        ["--model", "m", "--benchmark", "ade20k_150"],
        ["--model", "m", "--benchmark", "ade20k_150", "--data_dir", "d", "--dataset", "e"],
        ["--model", "m", "--dataset", "d", "--task", "depth"],
    ],
)
def test_an_incomplete_command_is_refused(evaluate, arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluate(*arguments)
    assert "error:" in capsys.readouterr().err


def bad_size(root):
    save(root / "images" / "p.png", picture(0))
    save(root / "labels" / "p.png", labels(0, width=15))
    return "p.png), or the like: must be of the same size"


def bad_label(root):
    save(root / "images" / "p.png", picture(0))
    save(root / "labels" / "p.png", labels(0) + 40)
    return "outside the vocabulary"


def bad_picture(root):
    save(root / "images" / "p.png", picture(0)).write_bytes(encode(picture(0))[:100])
    save(root / "labels" / "p.png", labels(0))
    return "the picture cannot be read"


def missing_annotation(root):
    save(root / "images" / "p.png", picture(0))
    save(root / "images" / "q.png", picture(0))
    save(root / "labels" / "q.png", labels(0))
    return "no label map of the same name"


@pytest.mark.parametrize("make", [bad_size, bad_label, bad_picture, missing_annotation])
def test_bad_data_get_one_error_that_names_the_file(evaluate, make, tiny_model_dir, tmp_path, capsys):
    expected = make(tmp_path / "data").rsplit(": ")[-1]
    (tmp_path / "data" / "classes.txt").write_text("sky\nroad\ncat\n")
    assert evaluate("--model", tiny_model_dir, "--dataset", tmp_path / "data", "--output_dir", tmp_path / "out") == 2
    message = capsys.readouterr().err
    lines = [line for line in message.splitlines() if line.startswith("maskadapter evaluate: error: ")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert "p.png" in lines[0] or "'p'" in lines[0]
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "/no/such/folder"], "There is no folder or file"),
        (["--dataset", "FOLDER", "--vocabulary", "sky,road"], "has 3 classes, but the vocabulary has 2"),
        (["--dataset", "FOLDER", "--task", "panoptic"], "cannot be measured"),
        (["--dataset", "FOLDER", "--mask_embedding", "max"], "mask_embedding 'max' is unknown"),
        (["--dataset", "FOLDER", "--split", "test"], "there is no split 'test'"),
        (["--benchmark", "ade", "--data_dir", "FOLDER"], "There is no benchmark 'ade'"),
        (["--benchmark", "ade20k_150", "--data_dir", "FOLDER"], "needs, in"),
        (["--benchmark", "ade20k_150", "--data_dir", "FOLDER", "--split", "val"], "layout is known"),
        (["--benchmark", "ade20k_847", "--data_dir", "FOLDER", "--task", "panoptic"], "semantic annotation only"),
    ],
)
def test_wrong_options_get_one_error(evaluate, folder, tiny_model_dir, options, message, capsys):
    options = [str(folder) if option == "FOLDER" else option for option in options]
    assert evaluate("--model", tiny_model_dir, *options) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert message in error


def test_a_model_that_does_not_exist_is_named(evaluate, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert evaluate("--model", tmp_path / "nothing", "--dataset", folder) == 2
    assert "nothing" in capsys.readouterr().err


def test_a_universal_model_is_compared_and_has_no_methods(evaluate, folder, tmp_path, capsys):
    from evaluation.test_universal_predictor import mask2former

    model, processor = mask2former(["sky", "road", "cat"])
    model.save_pretrained(tmp_path / "m2f")
    processor.save_pretrained(tmp_path / "m2f")
    assert evaluate("--model", tmp_path / "m2f", "--dataset", folder) == 0
    assert "| mask2former |" in capsys.readouterr().out
    assert evaluate("--model", tmp_path / "m2f", "--dataset", folder, "--masks", "annotation") == 2
    assert "leave out mask_embedding and masks" in capsys.readouterr().err


def test_options_of_the_model_are_passed_on(tiny_model_dir):
    from hf_maskadapter.model.vocabulary import Vocabulary

    predictor = load_predictor(
        str(tiny_model_dir),
        Vocabulary.from_list(["sky"]),
        shortest_edge=32,
        object_threshold=0.3,
        overlap_threshold=0.6,
        text_transfer_panoptic=True,
        dtype="bfloat16",
    )
    description = predictor.describe()
    assert description["image_processor"]["size"] == {"shortest_edge": 32, "longest_edge": 128}
    assert description["post_processing"]["object_threshold"] == 0.3
    assert description["post_processing"]["overlap_threshold"] == 0.6
    assert predictor.model.config.text_transfer_panoptic
    assert predictor.model.clip.logit_scale.dtype == torch.bfloat16


def test_int8_is_passed_on_told_and_only_for_cpus(tiny_model_dir):
    from hf_maskadapter.evaluation.report import describe_run, fingerprint
    from hf_maskadapter.model.cpu_mlp import computes_in_int8
    from hf_maskadapter.model.vocabulary import Vocabulary

    vocabulary = Vocabulary.from_list(["sky"])
    exact, rounded = (load_predictor(str(tiny_model_dir), vocabulary, dtype=dtype) for dtype in ("float32", "int8"))
    assert computes_in_int8(rounded.model)
    assert not computes_in_int8(exact.model)
    dataset = type("Dataset", (), {"name": "some", "has_instances": False})()
    assert describe_run(rounded, dataset, "tiny")["dtype"] == "int8"
    assert describe_run(exact, dataset, "tiny")["dtype"] == "torch.float32"
    assert fingerprint(exact, dataset, None, 0) != fingerprint(rounded, dataset, None, 0), "no resuming with the other"
    with pytest.raises(ValueError, match="int8 is for CPUs, and the device is cuda"):
        rounded.to(torch.device("cuda"))


def test_the_hash_of_a_model_is_that_of_its_weights(tiny_model_dir):
    first, second = (MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir) for _ in range(2))
    assert model_hash(first) == model_hash(second)
    with torch.no_grad():
        second.clip.logit_scale += 1e-6
    assert model_hash(first) != model_hash(second)
    assert model_hash(first) != model_hash(first.to(torch.float64))


def test_nan_becomes_null_in_json():
    assert without_nan({"a": [float("nan"), 1.0], "b": (None, "x")}) == {"a": [None, 1.0], "b": [None, "x"]}


@pytest.mark.slow
def test_accelerate_launches_the_command_away_from_the_clone(tiny_model_dir, tmp_path):
    import hf_maskadapter

    environment = {**os.environ, "PYTHONPATH": str(Path(hf_maskadapter.__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "-m", "hf_maskadapter.cli", "evaluate"]
    options = ["--model", tiny_model_dir, "--dataset", "scenes", "--max-samples", "1", "--output-dir", "out"]
    run = subprocess.run([*launcher, *options], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert read(tmp_path / "out" / "results.json")["num_samples"] == 1


# --- A converted checkpoint on real pictures, with one and two processes ---


def run_processes(arguments: list, num_processes: int) -> None:
    import hf_maskadapter

    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(hf_maskadapter.__file__).parents[1]),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={num_processes}", f"--master_port={free_port()}"]
    command = [sys.executable, *(launcher if num_processes > 1 else []), SCRIPTS / "evaluate.py", *arguments]
    run = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
@pytest.mark.skipif(not SHARED, reason="MASKADAPTER_SHARED does not name a folder with real data")
@pytest.mark.parametrize("name", ["camvid", "coco"])
def test_a_converted_checkpoint_gives_the_same_numbers_on_one_and_two_processes(name, tmp_path):
    checkpoint = ROOT / "tests" / "fixtures" / "fcclip_large" / "checkpoint.pth"
    config, tokenizer = ROOT / "examples" / "random_checkpoint.json", ROOT / "examples" / "byte_tokenizer"
    options = ["--config", config, "--tokenizer", tokenizer, "--output", tmp_path / "model"]
    assert cli.main(["convert", *map(str, [checkpoint, *options])]) == 0
    data = Path(SHARED) / "data"
    if name == "camvid":
        arguments = ["--dataset", data / "camvid", "--split", "val", "--max_samples", 7]
    else:
        sample = data / "coco_panoptic_sample"
        arguments = ["--dataset", sample / "panoptic_examples.json", "--image_folder", sample / "input_images"]
        arguments += ["--task", "semantic", "panoptic", "instance"]
    results = []
    for num_processes in (1, 2):
        out = tmp_path / str(num_processes)
        methods = ["--mask_embedding", "adapter", "pooling", "--num_worst", 2, "--output_dir", out]
        run_processes(["--model", tmp_path / "model", *arguments, *methods], num_processes)
        results.append(read(out / "results.json"))
    assert [result["num_processes"] for result in results] == [1, 2]
    assert results[0]["results"] == results[1]["results"]
    assert results[0]["worst"] == results[1]["worst"]
    assert results[0]["num_samples"] == {"camvid": 7, "coco": 2}[name]
    assert any(row["iou"] is not None for row in results[0]["results"]["adapter"]["per_class"])
