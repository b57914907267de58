"""Batches of the toy world for a stage, and what a stage computes from them."""

from __future__ import annotations

from hf_maskadapter.data import collate_training_samples
from support import toy


def batch(items=(1, 2, 3), source=None, **options):
    """A batch of samples of the toy world."""
    source = source or toy.Rectangles(min_masks=0)
    samples = [toy.transform(**options)(source.read(item), epoch=0) for item in items]
    return collate_training_samples(samples)


def compute(stage, batches):
    """Losses and gradients of batches with common denominators."""
    prepared = [stage.prepare(part) for part in batches]
    denominators = {name: sum(part.counts[name] for part in prepared) or 1.0 for name in prepared[0].counts}
    stage.zero_grad()
    losses = {}
    for part in prepared:
        output = stage(part.inputs, denominators)
        sum(output["losses"].values()).backward()
        for name, loss in output["losses"].items():
            losses[name] = losses.get(name, 0) + loss.detach()
    return losses, {name: parameter.grad for name, parameter in stage.named_parameters()}
