"""Pictures of results: overlays with outlines, names and a legend, heat maps of activations, side-by-side comparisons.

Everything is drawn with Pillow and NumPy. Sizes of lines and letters follow from the picture's size, so that a
thumbnail and a 12-megapixel photograph both stay readable.
"""

from ..model.class_colors import Color, class_color, class_colors
from .comparisons import compare, side_by_side
from .heat_maps import activation_heat_map, activation_weights, heat_map
from .overlays import overlay, overlay_masks

__all__ = [
    "Color",
    "activation_heat_map",
    "activation_weights",
    "class_color",
    "class_colors",
    "compare",
    "heat_map",
    "overlay",
    "overlay_masks",
    "side_by_side",
]
