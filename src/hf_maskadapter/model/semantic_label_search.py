"""The class of every pixel without every class's score: an exact search, tile by tile.

The label of a pixel is the arg max over classes c of s_c = Σ_q p_qc · m_q, with class probabilities p and mask
probabilities m. Inside a tile of pixels most masks hardly change and most classes cannot win, which bounds show before
the pixels are looked at (branch and bound):

1. Resizing is an average, so a mask's values in a tile lie between the extremes of the cells that the tile mixes:
   m_q = mid_q ± half_q.
2. *Masks.* Two classes' scores differ by Σ_q (p_qc − p_qd) m_q. A mask that is taken to be mid_q everywhere changes
   that by at most half_q · (max_c p_qc − min_c p_qc). The masks that change it least are taken to be constant, as long
   as the sum of these changes, the *error*, is small beside the margins seen at a few pixels; the others are *active*.
3. *Classes.* The winner of a pixel beats every average r of classes there. So a class is ruled out in an area if
   Σ_q (p_qc − p_qr) mid_q + Σ_active |p_qc − p_qr| half_q + error < 0: first in the tile, with the average of the
   winners at those few pixels as r, then in blocks of it, from the active masks' own values, with the winner at mid_q.
4. Scores of the classes that are left are computed with the active masks. Where the two best are closer than the
   error, they are computed again with all masks.

Whatever the few pixels of steps 2 and 3 are, the bounds hold; they decide only how much is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_TILE = 32
_BLOCK = 4
_MOST_MASKS_IN_BLOCKS = 32  # with more of them, bounds of blocks cost more than the scores that they save
_ERROR_OF_MARGIN = 0.03
_ROUNDING = 1e-5  # relative; sums over hundreds of masks in single precision are off by less


def bilinear_taps(old: int, new: int, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a bilinear resize mixes (`align_corners=False`, no antialiasing).

    Places are computed in double precision on the CPU, since not every accelerator has it (Apple's).

    Args:
        old: length before.
        new: length after.
        positions: some of the new positions, `(n,)`.

    Returns:
        For each the two old positions, and the second's share in fp32, `(n,)` each, where the positions are.
    """
    centers = ((positions.cpu().double() + 0.5) * (old / new) - 0.5).clamp(0, old - 1)
    lower = centers.long()
    taps = (lower, (lower + 1).clamp(max=old - 1), (centers - lower).float())
    return taps[0].to(positions.device), taps[1].to(positions.device), taps[2].to(positions.device)


class Taps(NamedTuple):
    """A linear resampling of a line: new value i is the sum over t of `weights[i, t]` · old value `positions[i, t]`."""

    positions: Tensor
    weights: Tensor

    @classmethod
    def bilinear(cls, old: int, new: int, count: int | None = None) -> Taps:
        """A bilinear resize from `old` to `new` values, of which the first `count` are kept."""
        positions = torch.arange(new if count is None else count)
        if old == new:
            return cls(positions[:, None], torch.ones(len(positions), 1))
        lower, upper, share = bilinear_taps(old, new, positions)
        return cls(torch.stack([lower, upper], dim=1), torch.stack([1 - share, share], dim=1))

    def then(self, following: Taps) -> Taps:
        """Both, one after the other."""
        weights = following.weights[..., None] * self.weights[following.positions]
        return Taps(self.positions[following.positions].flatten(1), weights.flatten(1))

    def window(self, new: slice) -> tuple[slice, Tensor]:
        """The old positions that some new ones mix, and the matrix `(num_new, num_old)` that mixes them."""
        positions, weights = self.positions[new], self.weights[new]
        first, last = int(positions.min()), int(positions.max()) + 1
        matrix = weights.new_zeros(len(positions), last - first)
        return slice(first, last), matrix.scatter_add_(1, positions - first, weights)


class Axis(NamedTuple):
    """Rows or columns on their way from a mask's cells to the label map.

    Args:
        before: resampling of mask values, before they become probabilities.
        after: resampling of mask probabilities, `None` for none. Class scores are sums of these, so that it is the same
            as resampling scores.
    """

    before: Taps
    after: Taps | None

    @classmethod
    def of(cls, cells: int, padded: int, image: int, wanted: int, resize_scores: bool) -> Axis:
        """Masks of `cells` resized to the `padded` input, cropped to the `image`, resized to the `wanted` length.

        Args:
            cells: length of the masks.
            padded: length of the padded input.
            image: the picture's length inside it.
            wanted: length of the result.
            resize_scores: whether scores are resized last, instead of mask values.
        """
        to_image, to_wanted = Taps.bilinear(cells, padded, image), Taps.bilinear(image, wanted)
        if image == wanted:
            return cls(to_image, None)
        return cls(to_image, to_wanted) if resize_scores else cls(to_image.then(to_wanted), None)

    def __len__(self) -> int:
        return len((self.after or self.before).positions)

    def tiles(self) -> list[_Line]:
        """Equal stretches of it."""
        return [self._line(slice(start, min(start + _TILE, len(self)))) for start in range(0, len(self), _TILE)]

    def _line(self, labels: slice) -> _Line:
        samples, after = (labels, None) if self.after is None else self.after.window(labels)
        cells, before = self.before.window(samples)
        return _Line(labels, cells, before, after)


@dataclass(frozen=True)
class _Line:
    """A tile's rows or columns: which labels, from which cells, and how."""

    labels: slice
    cells: slice
    before: Tensor
    after: Tensor | None

    def probes(self) -> Tensor:
        """What the first, middle and last label mix, `(3, num_cells)`."""
        matrix = self.before if self.after is None else self.after @ self.before
        return matrix[[0, len(matrix) // 2, -1]]


@dataclass(frozen=True)
class _Bounds:
    """What is known about the tiles of a band before a pixel is looked at; the first dimension counts tiles.

    Args:
        middle, half: of every mask's range, `(num_tiles, num_masks)`.
        is_active: masks that must be computed, `(num_tiles, num_masks)`.
        error: bound on how much the others change the difference of two classes, `(num_tiles,)`.
        scores: class scores with every mask at its middle, `(num_tiles, num_classes)`.
        reference: a weighting of classes that sums to 1, `(num_tiles, num_classes)`.
    """

    middle: Tensor
    half: Tensor
    is_active: Tensor
    error: Tensor
    scores: Tensor
    reference: Tensor


class LabelSearch:
    """The search in one picture.

    Args:
        class_probabilities: `(num_masks, num_classes)`.
        maps: mask values, `(num_masks, height, width)`.
        to_probabilities: mask values to mask probabilities, increasing.
        rows, columns: how they become rows and columns of the label map.
    """

    def __init__(
        self,
        class_probabilities: Tensor,
        maps: Tensor,
        to_probabilities: Callable[[Tensor], Tensor],
        rows: Axis,
        columns: Axis,
    ):
        self.class_probabilities, self.maps, self.to_probabilities = class_probabilities, maps, to_probabilities
        self.spread = class_probabilities.amax(dim=1) - class_probabilities.amin(dim=1)
        self.rows, self.columns = rows, columns

    def label_map(self) -> Tensor:
        """The class of every pixel, of ties the first, a `torch.LongTensor` of shape `(height, width)`."""
        labels = torch.empty(len(self.rows), len(self.columns), dtype=torch.long)
        columns = self.columns.tiles()
        for rows in self.rows.tiles():
            band = self.maps[:, rows.cells].float()
            bounds = self._bounds(band, rows, columns)
            for tile, of_columns in enumerate(columns):
                cells = band[..., of_columns.cells]
                labels[rows.labels, of_columns.labels] = self._tile(cells, tile, bounds, rows, of_columns)
        return labels

    def _bounds(self, band: Tensor, rows: _Line, columns: list[_Line]) -> _Bounds:
        highest, lowest = band.amax(dim=1), band.amin(dim=1)
        high = self.to_probabilities(torch.stack([highest[:, one.cells].amax(dim=1) for one in columns]))
        low = self.to_probabilities(torch.stack([lowest[:, one.cells].amin(dim=1) for one in columns]))
        middle, half = (high + low) / 2, (high - low) / 2
        probed_rows = rows.probes() @ band
        probed = torch.stack([probed_rows[..., one.cells] @ one.probes().T for one in columns], dim=1)
        probed_scores = self.to_probabilities(probed.flatten(1)).T @ self.class_probabilities
        best, winners = probed_scores.topk(min(2, probed_scores.shape[1]), dim=1)
        margin = (best[:, 0] - best[:, -1]).view(len(columns), -1).mean(dim=1)
        influence, order = (half * self.spread).sort(dim=1)
        error = influence.cumsum(dim=1)
        is_kept = error <= _ERROR_OF_MARGIN * margin[:, None]
        reference = probed_scores.new_zeros(len(columns), probed_scores.shape[1])
        reference.scatter_(1, winners[:, 0].view(len(columns), -1), 1.0)
        return _Bounds(
            middle,
            half,
            torch.empty_like(is_kept).scatter_(1, order, ~is_kept),
            (error * is_kept).amax(dim=1),
            middle @ self.class_probabilities,
            reference / reference.sum(dim=1, keepdim=True),
        )

    def _tile(self, cells: Tensor, tile: int, bounds: _Bounds, rows: _Line, columns: _Line) -> Tensor:
        """The labels of a tile, or the one label of all its pixels."""
        active = bounds.is_active[tile].nonzero().flatten()
        of_active, scores = self.class_probabilities[active], bounds.scores[tile]
        error = bounds.error[tile] + _ROUNDING * scores.amax()
        reference = bounds.reference[tile]
        classes = _possible_winners(
            of_active,
            scores[None],
            bounds.half[tile, active][None],
            (of_active @ reference)[None],
            scores @ reference,
            error,
        )
        if len(classes) == 1:
            return classes
        scores, of_active = scores[classes], of_active[:, classes]
        changes = self._probabilities(cells[active], rows, columns) - bounds.middle[tile, active][:, None, None]
        if 0 < len(active) <= _MOST_MASKS_IN_BLOCKS:
            left = _possible_winners_in_blocks(of_active, scores, changes, error)
            classes, scores, of_active = classes[left], scores[left], of_active[:, left]
            if len(classes) == 1:
                return classes
        sums = (of_active.T @ changes.flatten(1) + scores[:, None]).unflatten(1, changes.shape[1:])
        labels, best = index_of_largest(sums)
        if len(active) < len(cells):
            is_close = (sums >= best - error).sum(dim=0) > 1
            if is_close.any():
                values = self._probabilities(cells, rows, columns)[:, is_close]
                labels[is_close], _ = index_of_largest(self.class_probabilities[:, classes].T @ values)
        return classes[labels]

    def _probabilities(self, cells: Tensor, rows: _Line, columns: _Line) -> Tensor:
        probabilities = self.to_probabilities(rows.before @ cells @ columns.before.T)
        if rows.after is not None:
            probabilities = rows.after @ probabilities
        return probabilities if columns.after is None else probabilities @ columns.after.T


def _possible_winners(
    class_probabilities: Tensor,
    scores: Tensor,
    half: Tensor,
    reference: Tensor,
    reference_scores: Tensor,
    error: Tensor,
) -> Tensor:
    """Classes that may have the largest score somewhere in one of several areas.

    Args:
        class_probabilities: of the active masks, `(num_masks, num_classes)`.
        scores: with these at the middle of their ranges, `(num_areas, num_classes)`.
        half: of the ranges, `(num_areas, num_masks)`.
        reference: probability of each area's reference, an average of classes, `(num_areas, num_masks)`.
        reference_scores: its score, `(num_areas,)` or a scalar.
        error: what differences of scores may be off by, a scalar.

    Returns:
        Their indices, ascending.
    """
    gain = (half[:, None] @ (class_probabilities - reference[..., None]).abs())[:, 0]
    cannot_win = scores - reference_scores[..., None] + gain + error < 0
    return (~cannot_win).any(dim=0).nonzero().flatten()


def _possible_winners_in_blocks(class_probabilities: Tensor, scores: Tensor, changes: Tensor, error: Tensor) -> Tensor:
    """[`_possible_winners`] from the active masks' differences to their middle, `(num_masks, height, width)`."""
    high = F.max_pool2d(changes, _BLOCK, ceil_mode=True).flatten(1).T
    low = -F.max_pool2d(-changes, _BLOCK, ceil_mode=True).flatten(1).T
    of_blocks = scores + (high + low) / 2 @ class_probabilities
    reference_scores, references = of_blocks.max(dim=1)
    reference = class_probabilities.T[references]
    return _possible_winners(class_probabilities, of_blocks, (high - low) / 2, reference, reference_scores, error)


def index_of_largest(maps: Tensor) -> tuple[Tensor, Tensor]:
    """At each position which of several maps is the largest, of ties the first, and its value.

    It takes half the time of `maps.max(dim=0)` on CPU, where reducing to values is vectorised.
    """
    largest = maps.amax(dim=0)
    indices = torch.arange(len(maps), dtype=torch.int32, device=maps.device).view(-1, *[1] * largest.ndim)
    return torch.where(maps == largest, indices, indices[-1]).amin(dim=0).long(), largest


__all__ = ["Axis", "LabelSearch", "Taps", "bilinear_taps", "index_of_largest"]
