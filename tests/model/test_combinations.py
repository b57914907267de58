"""Every CLIP, mask generator and way to embed masks together: forward, save and load, pipeline, training, evaluation.

The default run covers every pair of a CLIP, a kind of generator and a way to embed; all combinations are slow.
"""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer, pipeline

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
from hf_maskadapter.data import collate_training_samples
from hf_maskadapter.evaluation import evaluate_model
from hf_maskadapter.evaluation.predictors import MaskAdapterPredictor
from hf_maskadapter.training.adapter_stages import GroundTruthWarmup, MixedMaskTraining
from support import tiny_models, toy
from support.evaluation_helpers import VOCABULARY, SampleList
from support.tiny_generators import TINY_GENERATORS

CLIPS = tuple(tiny_models.TINY_CLIPS)
GENERATORS = (*TINY_GENERATORS, "caller")
#: One of each kind; the others go the same ways.
KINDS_OF_GENERATORS = ("fcclip", "mask2former", "sam", "caller")
EMBEDDINGS = ("adapter", "pooling", "crop")
Combination = tuple[str, str, str]


def is_possible(combination: Combination) -> bool:
    """FC-CLIP's generator needs the feature maps of four strides that CLIPs with vision transformers lack."""
    clip, generator, _ = combination
    return generator != "fcclip" or clip in ("convnext", "resnet")


def pairs(combination: Combination) -> set[tuple]:
    """The pairs of values in a combination, with the places of both."""
    return {(first, second, combination[first], combination[second]) for first, second in ((0, 1), (0, 2), (1, 2))}


def pairwise(combinations: list[Combination]) -> list[Combination]:
    """Few combinations that hold every pair of values that any holds, chosen greedily."""
    missing = set().union(*map(pairs, combinations))
    chosen = []
    while missing:
        best = max(combinations, key=lambda combination: len(pairs(combination) & missing))
        missing -= pairs(best)
        chosen.append(best)
    return chosen


ALL = [combination for combination in product(CLIPS, GENERATORS, EMBEDDINGS) if is_possible(combination)]
OF_EACH_KIND = [combination for combination in ALL if combination[1] in KINDS_OF_GENERATORS]
DEFAULT = pairwise(OF_EACH_KIND)


@cache
def clip(name):
    return tiny_models.TINY_CLIPS[name]()


@cache
def generator(name, of_clip):
    if name == "caller":
        return None
    if name == "fcclip":
        return tiny_models.generator(feature_channels=clip(of_clip).config.feature_channels)
    return TINY_GENERATORS[name]()


@cache
def processor(name):
    """The processor of a CLIP, with one token for each ASCII character."""
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = [*characters, *(f"{character}</w>" for character in characters)]
    vocab = {token: index for index, token in enumerate(tokens)}
    vocab |= {"<|startoftext|>": tiny_models.START, "<|endoftext|>": tiny_models.END}
    size = {"shortest_edge": 64, "longest_edge": 96}
    return MaskAdapterProcessor.from_clip(
        clip(name).config, CLIPTokenizer(vocab=vocab, merges=[]), ["a {}."], size=size
    )


def own_masks(picture):
    masks = np.zeros((2, picture.height, picture.width), dtype=bool)
    masks[0, : picture.height // 2] = masks[1, :, 5:40] = True
    return masks


def check_forward_and_loading(model, of_clip, picture, given, folder):
    other = picture.crop((0, 0, 50, 60))
    masks = [own_masks(picture), own_masks(other)] if given else None
    inputs = of_clip(images=[picture, other], masks=masks, return_tensors="pt")
    vocabulary = model.encode_vocabulary(VOCABULARY, of_clip)
    model.save_pretrained(folder)
    loaded, report = MaskAdapterForOpenVocabularySegmentation.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    with torch.no_grad():
        outputs, again = model(**inputs, vocabulary=vocabulary), loaded.eval()(**inputs, vocabulary=vocabulary)
    total = outputs.class_queries_logits.exp().sum(dim=-1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-4, rtol=0)
    assert (outputs.class_queries_logits.shape[-1], len(total)) == (len(VOCABULARY) + 1, 2)
    torch.testing.assert_close(again.class_queries_logits, outputs.class_queries_logits, atol=1e-3, rtol=1e-3)
    return loaded


def check_pipeline(model, of_clip, picture, given):
    segmenter = pipeline("zero-shot-image-segmentation", model=model, processor=of_clip, device="cpu")
    image = {"image": picture, "masks": own_masks(picture)} if given else picture
    segments = segmenter(image, candidate_labels=VOCABULARY)
    assert segments
    assert all(segment["label"] in VOCABULARY.names and segment["mask"].size == picture.size for segment in segments)


def check_training_step(model, of_clip, given):
    """One step of stage 2, or without a generator of stage 1, changes the adapter and nothing else."""
    if model.adapter is None:
        return
    vocabulary = model.encode_vocabulary(toy.NAMES, of_clip)
    options = {"iou_threshold": -1.0, "max_matches": 2, "consistency_weight": 1000.0}
    stage = GroundTruthWarmup(model, vocabulary) if given else MixedMaskTraining(model, vocabulary, **options)
    statistics = {"image_mean": model.config.clip_config.pixel_mean, "image_std": model.config.clip_config.pixel_std}
    samples = [toy.transform(**statistics)(toy.Rectangles(min_masks=2).read(item), epoch=0) for item in (1, 2)]
    prepared = stage.prepare(collate_training_samples(samples))
    assert given or prepared.counts["pairs"] > 0
    losses = stage(prepared.inputs, {name: count or 1.0 for name, count in prepared.counts.items()})["losses"]
    before = {name: parameter.detach().clone() for name, parameter in stage.named_parameters()}
    optimizer = torch.optim.SGD(stage.parameters(), 1e-3)
    sum(losses.values()).backward()
    optimizer.step()
    after = dict(stage.named_parameters())
    assert all(parameter.isfinite().all() for parameter in after.values())
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.clip.parameters())


def check_evaluation(model, of_clip, given):
    predictor = MaskAdapterPredictor(
        model,
        of_clip,
        VOCABULARY,
        tasks=("semantic", "panoptic", "instance"),
        masks="annotation" if given else "generator",
    )
    result = evaluate_model(predictor, SampleList(2), show_progress=False)
    assert 0 <= result.metrics["mean_iou"] <= 1


def check(combination, picture, folder):
    of_clip, of_generator, embedding = combination
    given = of_generator == "caller"
    model = MaskAdapterForOpenVocabularySegmentation.from_parts(
        clip(of_clip),
        generator(of_generator, of_clip if of_generator == "fcclip" else None),
        "new" if embedding == "adapter" else None,
        mask_embedding=embedding,
        hidden_size=24,
        num_output_maps=4,
        layer_scale_init_value=0.5,
    )
    loaded = check_forward_and_loading(model, processor(of_clip), picture, given, folder)
    check_pipeline(loaded, processor(of_clip), picture, given)
    check_evaluation(loaded, processor(of_clip), given)
    check_training_step(loaded, processor(of_clip), given)


def test_the_default_run_covers_every_pair():
    assert set().union(*map(pairs, DEFAULT)) == set().union(*map(pairs, OF_EACH_KIND))
    assert len(DEFAULT) < len(OF_EACH_KIND) / 2


@pytest.mark.parametrize("combination", DEFAULT, ids="-".join)
def test_pair(combination, picture, tmp_path):
    check(combination, picture, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("combination", [other for other in ALL if other not in DEFAULT], ids="-".join)
def test_combination(combination, picture, tmp_path):
    check(combination, picture, tmp_path)
