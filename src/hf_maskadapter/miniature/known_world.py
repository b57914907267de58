"""What a miniature knows: how far a picture's CLIP features are from those of drawn scenes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..files import write_atomically

FILE_NAME = "known_world.safetensors"

_SHRINKAGE = 0.1
_MARGIN = 1.05


@dataclass
class KnownWorld:
    """A Gaussian of the mean dense features of scenes, and the distance beyond which a picture shows something else.

    Args:
        mean: `(feature_dim,)`.
        precision: inverse covariance, `(feature_dim, feature_dim)`.
        threshold: a little more than the largest distance of scenes that the Gaussian was not fitted to.
    """

    mean: Tensor
    precision: Tensor
    threshold: float

    @classmethod
    def of_scenes(cls, fitted: Iterable[Tensor], held_out: Iterable[Tensor]) -> KnownWorld:
        """Fit to the dense features of scenes.

        Args:
            fitted: dense features `(batch_size, feature_dim, height, width)` to fit the Gaussian to.
            held_out: dense features of other scenes, for the threshold.
        """
        means = torch.cat([features.float().mean(dim=(-2, -1)) for features in fitted])
        covariance = torch.cov(means.T)
        covariance = covariance + _SHRINKAGE * torch.diag(covariance.diag()) + 1e-8 * torch.eye(len(covariance))
        world = cls(means.mean(dim=0), torch.linalg.inv(covariance), 0.0)
        world.threshold = _MARGIN * max(world.distance(features).max().item() for features in held_out)
        return world

    def distance(self, dense_features: Tensor) -> Tensor:
        """Mahalanobis distance per dimension of pictures' mean features.

        Args:
            dense_features: `(batch_size, feature_dim, height, width)`.

        Returns:
            `(batch_size,)`.
        """
        offset = dense_features.float().mean(dim=(-2, -1)).cpu() - self.mean
        return ((offset @ self.precision * offset).sum(dim=-1) / offset.shape[-1]).clamp_min(0).sqrt()

    @torch.no_grad()
    def holds(self, dense_features: Tensor) -> list[bool]:
        """Whether each picture looks like a drawn scene.

        Args:
            dense_features: of the miniature's CLIP, `(batch_size, feature_dim, height, width)`.
        """
        return (self.distance(dense_features) <= self.threshold).tolist()

    def save(self, folder: str | os.PathLike) -> None:
        """Write the file beside a model."""
        tensors = {"mean": self.mean, "precision": self.precision, "threshold": torch.tensor(self.threshold)}
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        write_atomically(Path(folder) / FILE_NAME, lambda file: file.write(content))

    @classmethod
    def load(cls, folder: str | os.PathLike) -> KnownWorld:
        """Read the file beside a model.

        Raises:
            OSError: if there is none.
        """
        tensors = load_file(Path(folder) / FILE_NAME)
        return cls(tensors["mean"], tensors["precision"], tensors["threshold"].item())

    @classmethod
    def of_model(cls, model: str | os.PathLike) -> KnownWorld | None:
        """What the model in a folder knows; `None` for anything but a miniature.

        Args:
            model: a folder, or the name of a model on the Hub.
        """
        return cls.load(model) if (Path(model) / FILE_NAME).is_file() else None
