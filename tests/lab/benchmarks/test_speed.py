"""The speed benchmark runs both sides on equal inputs, checks that they agree, and reports what it measured."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from hf_maskadapter.model.cpu_mlp import SWITCH, packing_trials
from hf_maskadapter.model.modeling_clip_convnext import ConvNextBlock
from lab.benchmarks import speed
from lab.benchmarks.process_memory import can_measure_peaks
from lab.benchmarks.realistic_inputs import draw_class_scores, draw_masks, draw_outputs, read_segment_maps
from lab.benchmarks.speed_cases import CASES, DENSE, PACKAGE, Case, Setting, Workshop, share_of_different
from lab.commands import main

TINY = speed.Options(model_size="tiny", repeats=1, with_memory=False)
SMALL = Setting(size=96, num_masks=12, num_classes=7)
needs_peaks = pytest.mark.skipif(not can_measure_peaks(), reason="peak memory is read from Linux' /proc")


@pytest.fixture(scope="module")
def maps():
    return read_segment_maps(())


@pytest.fixture(scope="module")
def workshop(maps):
    return Workshop(maps, "tiny")


def same_case(first, second, needs_gradients=False):
    contenders = {PACKAGE: lambda: torch.tensor(first), DENSE: lambda: torch.tensor(second)}
    return Case(contenders, share_of_different, needs_gradients=needs_gradients)


@pytest.mark.parametrize("name", CASES)
def test_both_sides_of_every_case_run_equally_often_and_agree(workshop, name):
    measurement = speed.measure(name, SMALL, workshop.build(name, SMALL), TINY)
    assert measurement.calls[PACKAGE] == measurement.calls[DENSE] == 2
    assert 0 <= measurement.difference <= 1e-2
    assert measurement.seconds[PACKAGE] > 0
    assert measurement.seconds[DENSE] > 0
    assert measurement.faster > 0


def test_dense_results_change_with_the_masks(workshop):
    results = [workshop.build("adapter", Setting(96, number, 7)).contenders[DENSE]() for number in (4, 5)]
    assert results[0].shape[1] == 4
    assert results[1].shape[1] == 5
    assert results[0][0].std(dim=0).amax() > 0


def test_training_counts_gradients_of_every_weight(workshop):
    case = workshop.build("training", SMALL)
    gradients = [call() for call in case.contenders.values()]
    assert gradients[0].shape == (sum(parameter.numel() for parameter in workshop.adapter().parameters()),)
    assert (gradients[0] != 0).float().mean() > 0.5


def test_the_pipeline_classifies_drawn_masks_with_the_model_left_as_it_was(workshop):
    case, model = workshop.build("pipeline", SMALL), workshop.segmenter(SMALL.num_masks)
    generator = model.mask_generator
    with torch.no_grad():
        label_map = case.contenders[PACKAGE]()
    assert label_map.shape == SMALL.padded_size
    assert len(label_map.unique()) > 1
    assert model.mask_generator is generator


def test_a_disagreement_is_an_error():
    with pytest.raises(RuntimeError, match=r"adapter: this package and the dense implementation disagree by 5\.0e-01"):
        speed.measure("adapter", SMALL, same_case([1, 2], [1, 3]), TINY)
    case = same_case([1.0], [1.0])
    case.difference = lambda *_: float("nan")
    with pytest.raises(RuntimeError, match="disagree by nan"):
        speed.measure("adapter", SMALL, case, TINY)


def test_a_slow_first_round_counts(monkeypatch):
    monkeypatch.setattr(speed, "_SECONDS_NOT_WARMED", 0.0)
    assert speed.measure("adapter", SMALL, same_case([1], [1]), TINY).calls[PACKAGE] == 1


def test_gradients_are_on_for_training_only():
    for needs_gradients in (False, True):
        seen = []
        case = same_case([1], [1], needs_gradients)
        case.contenders["third"] = lambda seen=seen: seen.append(torch.is_grad_enabled())
        speed.measure("adapter", SMALL, case, TINY)
        assert seen == [needs_gradients] * 2


def test_operations_of_matrix_products_are_counted():
    matrix = torch.ones(8, 4)
    case = same_case([1], [1])
    case.contenders["product"] = lambda: matrix @ matrix.T
    assert speed.measure("adapter", SMALL, case, TINY).flops["product"] == 2 * 8 * 8 * 4
    assert speed.matmul_peak(torch.device("cpu"), "fp32") > 1e8


def test_operations_of_a_backward_pass_are_not_reported(workshop):
    measurement = speed.measure("training", SMALL, workshop.build("training", SMALL), TINY)
    assert measurement.flops == {}
    assert "| – | 1 |" in speed._row(measurement, peak=1e9)


def test_precisions_are_restored():
    before = torch.backends.cuda.matmul.allow_tf32
    with speed.computing("bf16", torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with speed.computing("tf32", torch.device("cpu")):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_every_axis_varies_around_the_first_values():
    settings = list(speed.settings_of("adapter", [64, 96, 128], [5, 6], [3, 4]))
    assert settings == [Setting(64, 5, 3), Setting(96, 5, 3), Setting(128, 5, 3), Setting(64, 6, 3)]
    assert Setting(size=900).padded_size == (928, 704)
    assert Setting(size=900).grid == (29, 22)


def test_report_and_files(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.delenv("MASKADAPTER_SHARED", raising=False)
    text = speed.run(("panoptic",), (64, 96, 128), (5,), (3,), TINY, tmp_path / "out", log=lambda line: None)
    table, comparisons = text.split("for comparison")
    assert table.count("| panoptic | 96×96, 5 masks |") == 1
    assert comparisons.count("| panoptic | 96×96, 5 masks | Transformers' Mask2Former |") == 1
    assert "masks from drawn scenes" in text
    assert "matmul peak" in text
    content = json.loads((tmp_path / "out" / "speed.json").read_text(encoding="utf-8"))
    assert [one["setting"]["size"] for one in content["measurements"]] == [64, 96, 128]
    assert content["conditions"]["machine"]["torch"] == torch.__version__
    assert (tmp_path / "out" / "speed.md").read_text(encoding="utf-8") == text + "\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["panoptic_size.png", "speed.json", "speed.md"]
    with Image.open(tmp_path / "out" / "panoptic_size.png") as picture:
        assert picture.width > 300
    measurements, _ = speed._read(tmp_path / "out" / "speed.json", content["conditions"])
    (axes,) = speed.plot(measurements, "size").axes
    assert axes.get_title() == "panoptic, 5 masks"


def test_what_a_folder_holds_is_kept_and_not_measured_again(tmp_path):
    def measure(case, options=TINY):
        measured = []
        text = speed.run((case,), (64,), (5,), (3,), options, tmp_path, log=measured.append)
        return measured, text

    assert len(measure("panoptic")[0]) == 1
    measured, text = measure("semantic", replace(TINY, repeats=2))
    assert len(measured) == 1
    assert text.index("| semantic | 64×64, 5 masks, 3 classes |") < text.index("| panoptic | 64×64, 5 masks |")
    assert measure("panoptic") == ([], text)
    with pytest.raises(ValueError, match="measured with another clock: give the same options"):
        measure("panoptic", replace(TINY, clock="cpu"))


def test_curves_without_matplotlib_are_refused_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="benchmark"):
        speed.run(("panoptic",), (64, 96, 128), (5,), (3,), TINY, tmp_path, log=lambda line: pytest.fail(line))


def test_the_script_prints_the_table(monkeypatch, capsys):
    monkeypatch.delenv("MASKADAPTER_SHARED", raising=False)
    assert main(["speed", "--quick", "--no-memory", "--cases", "adapter", "semantic"]) == 0
    printed = capsys.readouterr().out
    assert "| adapter | 128×96, 20 masks |" in printed
    assert "| semantic | 128×96, 20 masks, 9 classes |" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--cases", "adaptor"], "invalid choice: 'adaptor' (choose from 'adapter'"), (["--masks", "0"], "at least 1")],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["speed", *arguments])
    assert message in capsys.readouterr().err


@needs_peaks
@pytest.mark.slow
def test_memory_is_that_of_one_call_in_a_fresh_process():
    setting = Setting(size=512, num_masks=60, num_classes=100)
    ours, dense = (speed.measure_memory("semantic", setting, name, TINY) for name in (PACKAGE, DENSE))
    height, width = setting.padded_size
    assert dense > 4 * 100 * height * width
    assert 0 < ours < dense / 2


# Inputs


def test_masks_are_segments_with_a_share_of_empty_ones(maps):
    masks = draw_masks(maps.maps[0], (40, 30), 20, empty_share=0.3)
    is_empty = (masks.logits > 0).flatten(1).sum(dim=1) == 0
    assert (masks.segments == -1).sum() == 6
    assert is_empty[masks.segments == -1].all()
    assert is_empty.float().mean() <= 0.5
    assert ((masks.logits > 0).float().mean(dim=(1, 2)) < 0.95).all()


def test_only_the_first_mask_of_a_segment_is_sure_of_its_class():
    probabilities = draw_class_scores(torch.tensor([0, 1, 0, -1]), num_classes=30).exp()
    assert probabilities[:2, -1].tolist() == pytest.approx([0.1, 0.1], abs=1e-3)
    assert probabilities[2, -1] >= 0.5
    assert probabilities[3, -1] > 0.95
    assert probabilities[0, :-1].argmax() == probabilities[2, :-1].argmax()


def test_outputs_are_what_post_processing_reads(maps):
    outputs = draw_outputs(maps.maps[0], (64, 96), 9, 5)
    assert outputs.class_queries_logits.shape == (1, 9, 6)
    assert outputs.masks_queries_logits.shape == (1, 9, 16, 24)


def test_annotations_are_read_from_folders(tmp_path):
    (tmp_path / "maps").mkdir()
    Image.new("L", (6, 4), 3).save(tmp_path / "maps" / "label.png")
    Image.new("RGB", (6, 4), (1, 2, 0)).save(tmp_path / "maps" / "panoptic.png")
    maps = read_segment_maps([tmp_path / "maps"])
    assert {int(one.max()) for one in maps.maps} == {3, 513}
    assert maps.source.endswith("/maps")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no PNG"):
        read_segment_maps([tmp_path / "none"])


@torch.no_grad()
@pytest.mark.parametrize("packing", ["0", "onednn", "mkl"])
def test_products_by_packed_weights_are_counted(monkeypatch, packing):
    monkeypatch.setenv(SWITCH, packing)
    packing_trials(torch.float32)
    block = ConvNextBlock(16).eval()
    with speed.FlopCounterMode(display=False, custom_mapping=speed._flops_of_packed_products()) as counter:
        block(torch.randn(1, 16, 5, 7))
    depthwise, pointwise = 2 * 35 * 16 * 49, 2 * (2 * 35 * 16 * 64)
    assert counter.get_total_flops() == depthwise + pointwise
