"""The pre-training command: from data to a complete model with another CLIP, and the user's mistakes."""

import itertools
import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
from hf_maskadapter.cli import main
from hf_maskadapter.cli.pretrain import parse_options, pretraining_options
from hf_maskadapter.cli.pretraining import CaptionBatches, CropData, run_pretraining
from hf_maskadapter.cli.train import training_options
from hf_maskadapter.cli.training import run_training
from hf_maskadapter.data import DataError, load_segmentation_dataset
from hf_maskadapter.data.captions import SegmentCrops
from hf_maskadapter.training.checkpoints import CheckpointError
from hf_maskadapter.training.clip_validation import ContrastiveValidation
from hf_maskadapter.training.log import StepLog
from support import toy
from support.project_scripts import SCRIPTS
from support.two_processes import run_by_two_processes

pytestmark = pytest.mark.usefixtures("fresh_accelerate_state", "on_the_cpu")


@pytest.fixture
def options(tiny_model_dir, data_dir, tmp_path):
    return {
        "model": str(tiny_model_dir),
        "dataset": str(data_dir),
        "output_dir": str(tmp_path / "out"),
        "crop_size": 32,
        "batch_size": 8,
        "max_steps": 2,
        "num_workers": 0,
        "min_segment_area": 100,
    }


def train_clip(options, **changes):
    toy.reset_accelerate()
    return run_pretraining(pretraining_options(options | changes))


def weights(output_dir):
    return load_file(Path(output_dir) / "model" / "model.safetensors")


def captioned_folder(root):
    root.mkdir()
    for index, color in enumerate(("red", "green", "blue", "black")):
        Image.new("RGB", (50, 40), color).save(root / f"{index}.png")
    lines = [f'{{"file_name": "{index}.png", "caption": "picture {index}"}}' for index in range(4)]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return root


class TestResult:
    def test_is_a_complete_model_whose_clip_alone_was_trained(self, options):
        result = train_clip(options)
        out = Path(options["output_dir"])
        trained, before = weights(out), load_file(Path(options["model"]) / "model.safetensors")
        assert result.step == 2
        assert trained.keys() == before.keys()
        for name, value in before.items():
            if not name.startswith("clip."):
                assert torch.equal(trained[name], value), name
        for part in ("clip.vision_model.stages.0", "clip.text_model", "clip.visual_projection", "clip.logit_scale"):
            assert any(not torch.equal(trained[n], before[n]) for n in before if n.startswith(part)), part
        model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(out / "model").eval()
        processor = MaskAdapterProcessor.from_pretrained(out / "model")
        assert model.encode_vocabulary(["cat", "sky"], processor).num_classes == 2
        assert [record["step"] for record in StepLog(out / "log.jsonl").read()] == [1, 2]
        assert json.loads((out / "training_result.json").read_text())["loss"] == result.loss
        card = (out / "model" / "README.md").read_text()
        assert "2 optimiser steps on data (6 samples, 3 classes)" in card
        assert "scripts/pretrain_clip.py" in card

    def test_is_what_the_stages_go_on_from(self, options, tmp_path):
        train_clip(options)
        toy.reset_accelerate()
        stage = {
            "stage": "warmup",
            "model": str(Path(options["output_dir"]) / "model"),
            "dataset": options["dataset"],
            "output_dir": str(tmp_path / "warmup"),
            "crop_size": 64,
            "batch_size": 2,
            "max_steps": 1,
            "num_workers": 0,
        }
        assert run_training(training_options(stage)).step == 1

    def test_with_a_new_clip_has_new_weights_everywhere(self, options):
        train_clip(options, new_clip=True, max_steps=1, seed=1)
        trained = weights(options["output_dir"])
        before = load_file(Path(options["model"]) / "model.safetensors")
        for part in ("clip.vision_model", "clip.text_model", "mask_generator", "adapter"):
            names = [name for name in before if name.startswith(part)]
            assert sum(torch.equal(trained[name], before[name]) for name in names) < 0.8 * len(names), part
        config = json.loads((Path(options["output_dir"]) / "model" / "config.json").read_text())
        assert config["training_vocabulary"] is None

    def test_learns_the_classes(self, options):
        train_clip(options, max_steps=30, learning_rate=5e-3, warmup_steps=3, text_learning_rate_scale=0.2)
        losses = [record["loss"] for record in StepLog(Path(options["output_dir"]) / "log.jsonl").read()]
        assert sum(losses[-3:]) < sum(losses[:3]) - 0.5

    def test_a_norm_of_zero_means_no_clipping(self, options):
        before = load_file(Path(options["model"]) / "model.safetensors")
        train_clip(options, max_grad_norm=0, weight_decay=0.0)
        trained = weights(options["output_dir"])
        names = [name for name in before if name.startswith("clip.") and name.endswith(".weight")]
        assert sum(torch.equal(trained[name], before[name]) for name in names) < 0.2 * len(names)

    def test_goes_on_to_the_same_weights(self, options, tmp_path, monkeypatch):
        whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
        train_clip(options, output_dir=whole, max_steps=4)
        batches = CaptionBatches.__iter__

        def interrupted(self):
            yield from itertools.islice(batches(self), 3)
            raise KeyboardInterrupt

        monkeypatch.setattr(CaptionBatches, "__iter__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_clip(options, output_dir=parts, max_steps=4, save_steps=2)
        monkeypatch.setattr(CaptionBatches, "__iter__", batches)
        result = train_clip(options, output_dir=parts, max_steps=4, save_steps=2, resume_from_checkpoint="latest")
        assert result.step == 4
        assert [record["step"] for record in StepLog(Path(parts) / "log.jsonl").read()] == [1, 2, 3, 4]
        expected, found = weights(whole), weights(parts)
        assert all(torch.equal(found[name], value) for name, value in expected.items())

    def test_is_validated_with_the_average_and_is_the_best_on_request(self, options, tmp_path, monkeypatch):
        clip_weights = []

        def measure(self):
            clip_weights.append({name: value.clone() for name, value in self.stage.state_dict().items()})
            return {"loss": float(len(clip_weights)), "accuracy": [0.25, 0.75, 0.5][len(clip_weights) - 1]}

        monkeypatch.setattr(ContrastiveValidation, "__call__", measure)
        result = train_clip(
            options, max_steps=5, validation_split="val", eval_steps=2, ema_decay=0.9, keep="best", checkpoints_limit=1
        )
        assert (result.best_step, result.best_value, result.metrics) == (4, 0.75, {"loss": 3.0, "accuracy": 0.5})
        out = Path(options["output_dir"])
        averages = load_file(out / "checkpoints" / "step-00000004" / "ema.safetensors")
        saved = weights(out)
        for name, average in averages.items():
            assert torch.equal(clip_weights[1][name], average), name
            assert torch.equal(saved[name], average), name
        evaluations = [record for record in StepLog(out / "log.jsonl").read() if "eval_loss" in record]
        assert evaluations[0] == {"step": 2, "eval_loss": 1.0, "eval_accuracy": 0.25}
        assert [record["step"] for record in evaluations] == [2, 4, 5]
        card = (out / "model" / "README.md").read_text()
        assert "| accuracy | 50.0 |" in card
        assert "Contrastive loss: 3.0000." in card

    def test_is_validated_on_the_same_crops_whatever_the_seed(self, options, tmp_path):
        common = {"max_steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "validation_split": "val"}
        results = [
            train_clip(options, output_dir=str(tmp_path / str(seed)), seed=seed, **common).metrics for seed in (0, 1)
        ]
        assert results[0] == pytest.approx(results[1], rel=1e-6)
        segmenter = MaskAdapterForOpenVocabularySegmentation.from_pretrained(options["model"]).eval()
        processor = MaskAdapterProcessor.from_pretrained(options["model"])
        assert results[0] == pytest.approx(self.expected(options, segmenter, processor), rel=1e-4)

    @staticmethod
    @torch.no_grad()
    def expected(options, segmenter, processor):
        """Loss and accuracy on the two pictures, 4 crops of each, by the definition."""
        dataset = load_segmentation_dataset(options["dataset"], split="val")
        crops = SegmentCrops(
            vocabulary=dataset.vocabulary,
            crop_size=32,
            min_area=100,
            flip_probability=0.0,
            image_mean=processor.image_processor.image_mean,
            image_std=processor.image_processor.image_std,
        )
        found = [crop for sample in dataset for crop in crops(sample)]
        names = [crop.captions[0] for crop in found]
        template = processor.prompt_templates[0]
        ids = [processor.tokenizer([template.replace("{}", name)], return_tensors="pt")["input_ids"] for name in names]
        images = [segmenter.clip.get_image_features(crop.pixel_values[None])[0].double() for crop in found]
        texts = [segmenter.clip.get_text_features(each)[0].double() for each in ids]
        scale = segmenter.clip.get_logit_scale().item()
        logits = torch.tensor([[scale * torch.cosine_similarity(i, t, dim=0) for t in texts] for i in images])
        same = torch.tensor([[float(one == other) for other in names] for one in names])
        target = same / same.sum(dim=1, keepdim=True)
        loss = -(target * (logits.log_softmax(1) + logits.log_softmax(0).T)).sum(dim=1).mean() / 2
        right = [names[int(row.argmax())] == name for row, name in zip(logits, names, strict=True)]
        return {"loss": loss.item(), "accuracy": sum(right) / len(right)}

    def test_of_pictures_with_captions_is_validated_on_others(self, options, tmp_path):
        folder = captioned_folder(tmp_path / "captioned")
        held_out = captioned_folder(tmp_path / "held_out")
        result = train_clip(
            options,
            dataset=str(folder),
            captions=True,
            cache_dir=str(tmp_path / "cache"),
            batch_size=4,
            validation_dataset=str(held_out),
            validation_split="train",
            max_validation_samples=3,
        )
        assert result.metrics["accuracy"] in [pytest.approx(right / 3) for right in range(4)]
        assert result.metrics["loss"] > 0

    def test_of_pictures_with_captions(self, options, tmp_path):
        folder = captioned_folder(tmp_path / "captioned")
        cache = str(tmp_path / "cache")
        result = train_clip(options, dataset=str(folder), captions=True, cache_dir=cache, batch_size=4)
        assert result.step == 2
        card = (Path(options["output_dir"]) / "model" / "README.md").read_text()
        assert "(4 samples, captions)" in card


def test_the_reported_accuracy_is_a_mean_of_the_batches(options):
    result = train_clip(options, max_steps=1)
    (record,) = StepLog(Path(options["output_dir"]) / "log.jsonl").read()
    assert result.accuracy == pytest.approx(record["accuracy"])


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch(options, tmp_path):
    train_clip(options, output_dir=str(tmp_path / "alone"), max_steps=3, validation_split="val")
    together = options | {"output_dir": str(tmp_path / "together"), "max_steps": 3, "validation_split": "val"}
    words = [word for name, value in together.items() for word in (f"--{name}", str(value))]
    run_by_two_processes(str(SCRIPTS / "pretrain_clip.py"), *words)
    logs = [StepLog(tmp_path / name / "log.jsonl").read() for name in ("alone", "together")]
    validations = [[record for record in log if "eval_loss" in record] for log in logs]
    assert validations[1] == [pytest.approx(record, rel=1e-3) for record in validations[0]]
    logs = [[record for record in log if "loss" in record] for log in logs]
    assert [record["step"] for record in logs[1]] == [1, 2, 3]
    for alone, by_two in zip(*logs, strict=True):
        assert by_two["loss"] == pytest.approx(alone["loss"], rel=1e-3)


class TestBatches:
    class Tokenizer:
        def __call__(self, texts, **_):
            self.texts = texts
            return {"input_ids": torch.zeros(len(texts), 3, dtype=torch.long)}

    def batches(self, captions, templates=("a {}.", "the {}", "one {}"), **options):
        class Sampler:
            global_batch_size = len(captions)

            state: ClassVar = {"consumed": 0}

            def state_dict(self, consumed):
                return {"consumed": consumed}

            def load_state_dict(self, state):
                self.state = state

        class Loader:
            def __init__(self):
                self.batch_sampler = Sampler()

            def __iter__(self):
                first = self.batch_sampler.state["consumed"] // len(captions)
                while True:
                    yield {"pixel_values": torch.full((len(captions), 1), first), "captions": captions}
                    first += 1

        return CaptionBatches(CropData(Loader(), templates, "toy", 4, 2), self.Tokenizer(), **options)

    def test_equal_classes_have_equal_texts(self):
        batches = self.batches([("road", "street"), ("car", "auto"), ("road", "street")])
        seen = set()
        for _ in itertools.islice(batches, 30):
            first, _, third = batches.tokenizer.texts
            assert first == third
            seen.add(first)
        assert len(seen) == 6

    def test_have_as_many_positions_as_asked_for(self):
        batches = self.batches([("road",), ("car",)], positions=3)
        batch = next(iter(batches))
        assert batch["input_ids"].shape == (3, 2, 3)
        assert len(batches.tokenizer.texts) == 6

    def test_are_a_function_of_the_step(self):
        captions = [("road", "street", "lane"), ("car", "auto", "van")]
        batches, other = self.batches(captions, seed=1), self.batches(captions, seed=1)
        *_, sixth = itertools.islice(batches, 6)
        other.load_state_dict(batches.state_dict(5 * len(captions)))
        assert sixth["pixel_values"][0, 0] == 5
        assert next(iter(other))["pixel_values"][0, 0] == 5
        assert other.tokenizer.texts == batches.tokenizer.texts


class TestMistakes:
    def test_a_folder_of_another_run_is_not_overwritten(self, options):
        train_clip(options, max_steps=1)
        with pytest.raises(CheckpointError, match="holds checkpoints of another run"):
            train_clip(options, max_steps=1)

    def test_other_options_than_the_run_began_with_are_warned_of(self, options, caplog):
        train_clip(options, max_steps=1)
        train_clip(options, max_steps=2, resume_from_checkpoint="latest", learning_rate=1e-4)
        assert "learning_rate (0.001, now 0.0001)" in caplog.text

    def test_a_damaged_checkpoint_is_named_and_not_gone_on_from(self, options, caplog):
        train_clip(options, max_steps=2, save_steps=1)
        checkpoints = Path(options["output_dir"]) / "checkpoints"
        (checkpoints / "step-00000002" / "model.safetensors").write_bytes(b"half")
        assert train_clip(options, max_steps=3, resume_from_checkpoint="latest").step == 3
        assert "step-00000002 is damaged" in caplog.text
        (checkpoints / "step-00000001" / "optimizer.bin").write_bytes(b"half")
        with pytest.raises(CheckpointError, match="step-00000001 is damaged"):
            train_clip(options, max_steps=3, resume_from_checkpoint=str(checkpoints / "step-00000001"))

    def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(self, options, monkeypatch):
        train_clip(options, max_steps=1)
        checkpoint = Path(options["output_dir"]) / "checkpoints" / "step-00000001"
        before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}

        def full_disk(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full_disk)
        with pytest.raises(CheckpointError, match=r"step 2 could not be written.*No space left"):
            train_clip(options, max_steps=2, resume_from_checkpoint="latest")
        assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
        assert [path.name for path in checkpoint.parent.iterdir()] == ["step-00000001"]

    def test_a_checkpoint_of_a_version_before_is_refused(self, options):
        Path(options["output_dir"]).mkdir()
        (Path(options["output_dir"]) / "checkpoint.pt").write_bytes(b"")
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt is .* version before 0\.2.*another output folder"):
            train_clip(options, resume_from_checkpoint="latest")

    def test_an_unreadable_picture_is_named(self, options, data_dir):
        (data_dir / "train" / "images" / "4.png").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"4\.png.*cannot be read"):
            train_clip(options, batch_size=24)

    def test_segments_that_are_all_too_small_are_an_error(self, options):
        with pytest.raises(DataError, match="lower min_segment_area"):
            train_clip(options, min_segment_area=100_000)

    def test_a_missing_caption_column_is_named(self, options, tmp_path):
        folder = captioned_folder(tmp_path / "captioned")
        with pytest.raises(DataError, match="no column 'words'"):
            train_clip(options, dataset=str(folder), caption_column="words", cache_dir=str(tmp_path / "cache"))

    def test_a_crop_that_does_not_fit_the_model_is_an_error(self, options):
        with pytest.raises(ValueError, match="multiple of 32"):
            train_clip(options, crop_size=50)

    def test_a_batch_that_cannot_be_divided_is_an_error(self, options):
        with pytest.raises(ValueError, match="choose a multiple of 4"):
            train_clip(options, batch_size=6)

    def test_a_wrapped_clip_is_refused(self, options, tmp_path):
        from support import tiny_models

        config = tiny_models.segmenter_config(clip_config=tiny_models.vit_clip_config(), mask_generator_config=None)
        tiny_models.build(MaskAdapterForOpenVocabularySegmentation, config).save_pretrained(tmp_path / "vit")
        MaskAdapterProcessor.from_pretrained(options["model"]).save_pretrained(tmp_path / "vit")
        with pytest.raises(ValueError, match="wraps a CLIP of Transformers"):
            train_clip(options, model=str(tmp_path / "vit"))

    def test_a_loss_that_is_not_finite_stops_the_run(self, options):
        with pytest.raises(FloatingPointError, match="The loss of step"):
            train_clip(options, learning_rate=1e30, warmup_steps=0, max_steps=10)

    def test_the_script_prints_one_line(self, options, capsys):
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        assert main(["pretrain", *words, "--crop_size", "50"]) == 2
        assert (
            capsys.readouterr()
            .err.strip()
            .splitlines()[-1]
            .startswith("maskadapter pretrain: error: crop_size=50 must be a multiple")
        )
        assert main(["pretrain", *words, "--max_steps", "1"]) == 0
        assert capsys.readouterr().out.startswith("Trained 1 steps")


class TestOptions:
    NEEDED = ("--dataset", "d", "--output_dir", "o")

    def parse(self, *words):
        return parse_options([*self.NEEDED, *words])

    def test_a_caption_column_means_captions(self):
        assert pretraining_options(
            {"dataset": "d", "output_dir": "o", "max_steps": 1, "caption_column": "text"}
        ).data.captions

    def test_are_read_from_a_command_line(self):
        found = self.parse(*["--max_steps", "5", "--context", "1", "3", "--no-train_logit_scale"])
        assert found.crops.context == (1.0, 3.0)
        assert not found.start.train_logit_scale

    def test_that_do_not_fit_are_refused(self, capsys):
        with pytest.raises(SystemExit):
            self.parse("--max_steps", "0")
        assert "max_steps must be at least 1" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "words", [("--eval-steps", "2"), ("--max_validation_samples", "2"), ("--validation-dataset", "d")]
    )
    def test_of_a_validation_need_a_split(self, words, capsys):
        with pytest.raises(SystemExit):
            self.parse("--max_steps", "5", *words)
        assert "needs a validation_split" in capsys.readouterr().err
        assert self.parse("--max_steps", "5", *words, "--validation-split", "val").validation.validation_split == "val"

    def test_the_best_weights_need_a_validation(self, capsys):
        with pytest.raises(SystemExit):
            self.parse("--max_steps", "5", "--keep", "best")
        assert "keep='best' needs a validation_split" in capsys.readouterr().err

    def test_the_output_folder_does_not_decide_the_weights(self):
        options = {"dataset": "d", "max_steps": 1}
        moved = pretraining_options(
            options | {"output_dir": "elsewhere", "num_workers": 9, "validation_split": "val", "keep": "best"}
        )
        assert pretraining_options(options | {"output_dir": "o"}).fingerprint() == moved.fingerprint()
