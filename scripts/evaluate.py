#!/usr/bin/env python
"""Measure a model: mean IoU, panoptic quality, mask average precision.

accelerate launch scripts/evaluate.py --model MODEL --benchmark ade20k_150 --data_dir ADEChallengeData2016
accelerate launch scripts/evaluate.py --model MODEL --dataset FOLDER --split val --output_dir out/own
python scripts/evaluate.py --list
"""

from __future__ import annotations

import argparse
import sys


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Measure a model on a benchmark or on one's own data, on one or many processes (accelerate "
        "launch). An interrupted evaluation goes on when the same command is given again.",
    )
    parser.add_argument("--list", action="store_true", help="show the benchmarks and what to download for each")
    parser.add_argument("--model", help="folder or Hub id of a model of this package or of any universal segmenter")

    data = parser.add_argument_group("data")
    data.add_argument("--benchmark", help="one of the benchmarks that --list shows; needs --data_dir")
    data.add_argument("--data_dir", help="folder with the benchmark's download, or what prepare_dataset.py made of it")
    data.add_argument(
        "--dataset",
        help="a data set instead of a benchmark: folder, COCO-style JSON file, Hub id, or scenes: 300 (--max_samples) "
        "drawn scenes of the miniature world",
    )
    data.add_argument(
        "--vocabulary",
        help="the data set's classes: a file, a label set or a list; with --benchmark a file of synonyms for them",
    )
    data.add_argument("--split", help="the split to evaluate")
    data.add_argument("--config_name", help="configuration of a Hub data set")
    data.add_argument("--revision", help="version of a Hub data set")
    data.add_argument("--streaming", action="store_true", help="read a Hub data set while it arrives")
    data.add_argument("--image_folder", help="folder of the pictures, if a COCO-style file does not tell")
    data.add_argument("--panoptic_folder", help="folder of the panoptic PNGs, if a COCO-style file does not tell")
    for column in ("image", "label", "panoptic", "segments", "id"):
        data.add_argument(f"--{column}_column", help="name of that column, if it is not the usual one")
    data.add_argument("--reduce_labels", action="store_true", help="label maps hold class index + 1 and 0 for no label")
    data.add_argument("--ignore_index", type=int, nargs="+", help="values of label maps that are ignored")
    data.add_argument("--ignore_unlisted", action="store_true", help="ignore labels outside the vocabulary")
    data.add_argument("--max_samples", type=int, help="evaluate the first so many samples only")

    method = parser.add_argument_group("what to measure, and how")
    method.add_argument(
        "--task",
        nargs="+",
        choices=("semantic", "panoptic", "instance"),
        help="default: the benchmark's, or semantic",
    )
    method.add_argument(
        "--mask_embedding",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="ways to classify masks, side by side: adapter, crop, pooling, pooling-hard, pooling-area, pooling-any "
        "(default: the model's own)",
    )
    method.add_argument(
        "--masks",
        choices=("generator", "annotation"),
        default="generator",
        help="whose masks are classified; annotation: the annotated segments (upper bound)",
    )
    method.add_argument("--shortest_edge", type=int, help="the input's shorter side in pixels, instead of the model's")
    method.add_argument("--longest_edge", type=int, help="the input's longer side at most, instead of the model's")
    method.add_argument("--object_threshold", type=float, help="of panoptic results, instead of the model's")
    method.add_argument("--overlap_threshold", type=float, help="of panoptic results, instead of the model's")
    method.add_argument(
        "--resize_scores",
        action=argparse.BooleanOptionalAction,
        help="compute semantic scores at the input's size and resize them, instead of the masks (default: as published "
        "for the benchmark)",
    )
    method.add_argument(
        "--text_transfer_panoptic",
        action=argparse.BooleanOptionalAction,
        help="formula of a MAFT+ model's text transfer, instead of the model's",
    )
    method.add_argument(
        "--label_matching",
        choices=("names", "order"),
        default="names",
        help="how the labels of a model with fixed labels become classes (default: by names)",
    )
    method.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")

    run = parser.add_argument_group("the run")
    run.add_argument("--output_dir", help="folder for results, progress and pictures of the worst samples")
    run.add_argument("--overwrite", action="store_true", help="begin anew and replace results in the output folder")
    run.add_argument("--batch_size", type=int, default=1, help="pictures of equal size at a time (default: 1)")
    run.add_argument("--num_workers", type=int, default=0, help="processes that read pictures (default: 0)")
    run.add_argument("--num_worst", type=int, default=8, help="worst samples to draw (default: 8)")
    run.add_argument("--save_every", type=int, default=50, help="samples between two states of progress (default: 50)")
    run.add_argument("--model_card", help="Markdown file whose metadata get the results (eval_results)")
    run.add_argument("--push_to_hub", action="store_true", help="publish the output folder in the model's repository")
    run.add_argument("--hub_model_id", help="that repository, as owner/name (default: --model)")
    parsed = parser.parse_args(arguments)
    if not parsed.list:
        if not parsed.model:
            parser.error("give --model")
        if (parsed.benchmark is None) == (parsed.dataset is None):
            parser.error("give either --benchmark with --data_dir, or --dataset")
        if parsed.benchmark is not None and parsed.data_dir is None:
            parser.error("--benchmark needs --data_dir; --list tells what it must hold")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parsed = parse_arguments(arguments)
    if parsed.list:
        from hf_maskadapter.evaluation.benchmarks import BENCHMARKS

        print("\n\n".join(f"{name}\n  {entry.instructions()}" for name, entry in BENCHMARKS.items()))
        return 0

    from hf_maskadapter.cli.running import run_script
    from hf_maskadapter.evaluation.command import run_evaluation
    from hf_maskadapter.evaluation.progress import ProgressError

    options = {name: value for name, value in vars(parsed).items() if name != "list"}
    return run_script(lambda: run_evaluation(**options), ProgressError)


if __name__ == "__main__":
    sys.exit(main())
