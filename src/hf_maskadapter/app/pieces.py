"""Pieces of the page in HTML. Whatever comes from users is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PIL import Image

from ..model.class_colors import class_color
from .downloads import Download
from .scenes import ExampleScene
from .segmenting import Comparison, Explanation, Method
from .viewing import as_data_address, comparison_pictures, data_address, explanation_picture

_WHERE = {
    "adapter": "Where the Mask-Adapter looks for this mask: the brighter, the more a place counts.",
    "pooling": "Mask pooling weighs every place of the mask alike; choose the adapter to see an activation map.",
    "crop": "The picture was cropped around the mask, and every place of it counts; choose the adapter to see an "
    "activation map.",
}


def percent(share: float) -> str:
    """A share, 0 to 1, for people."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def message(text: str, kind: str = "note") -> str:
    """A sentence above the result.

    Args:
        text: what to say, nothing for no message.
        kind: `"error"`, `"warning"` or `"note"`, which is also told in words.
    """
    if not text:
        return ""
    head = {"error": "<strong>That did not work.</strong> ", "warning": "<strong>Note.</strong> "}.get(kind, "")
    role = "alert" if kind == "error" else "status"
    return f'<div class="ma-message ma-{kind}" role="{role}">{head}{escape(text)}</div>'


def hint(text: str) -> str:
    """A sentence that stands where there is nothing to show yet."""
    return f'<p class="ma-hint">{escape(text)}</p>'


def explanation_piece(picture: Image.Image, explanation: Explanation, method: Method) -> str:
    """What there is to tell about one segment.

    Args:
        picture: at the size that the page shows.
        explanation: of the segment.
        method: how masks were classified.
    """
    score = f"Score {explanation.score:.2f}"
    if not explanation.is_own_score:
        score = f"Probability {explanation.score:.2f} of the mask that decides most here"
    rows = "".join(_word(name, value, name == explanation.label) for name, value in explanation.words)
    rows += _word("nothing of these", explanation.void, False)
    heat = data_address(explanation_picture(picture, explanation))
    return (
        f'<section class="ma-explanation" aria-live="polite"><h3>{_swatch(explanation.label)} '
        f"{escape(explanation.label)}</h3><p>{score}; {percent(explanation.share)} of the picture.</p>"
        f"<table><caption>Best words for this mask</caption><tbody>{rows}</tbody></table>"
        f'<figure><img src="{heat}" alt="Heat over the picture. {escape(_WHERE[method])}">'
        f"<figcaption>{escape(_WHERE[method])}</figcaption></figure></section>"
    )


def _word(name: str, value: float, is_label: bool) -> str:
    mark = ' class="ma-chosen"' if is_label else ""
    return (
        f"<tr{mark}><th scope='row'>{escape(name)}</th><td><span class='ma-bar' style='width:{100 * value:.1f}%'>"
        f"</span></td><td class='ma-number'>{percent(value)}</td></tr>"
    )


def _swatch(label: str) -> str:
    red, green, blue = class_color(label)
    return f'<span class="ma-swatch" style="background:rgb({red},{green},{blue})"></span>'


def downloads_piece(files: Sequence[Download]) -> str:
    """Links to files that the page itself holds."""
    links = "".join(
        f'<a class="ma-download" download="{escape(file.name)}" href="{as_data_address(file.content, file.kind)}">'
        f"{escape(file.title)}</a>"
        for file in files
    )
    return f'<nav class="ma-downloads" aria-label="Downloads"><span>Download:</span>{links}</nav>'


def comparison_piece(picture: Image.Image, comparison: Comparison) -> str:
    """Both results, where they differ, and what each calls it.

    Args:
        picture: at the size that the page shows.
        comparison: of the picture.
    """
    panels = "".join(
        f'<figure><figcaption>{escape(title)}</figcaption><img src="{data_address(panel)}" alt="{escape(title)}">'
        "</figure>"
        for title, panel in comparison_pictures(picture, comparison).items()
    )
    share = percent(float(comparison.differs.mean()))
    rows = "".join(
        f"<tr><td>{_swatch(entry.adapter)} {escape(entry.adapter)}</td><td>{_name(entry.pooling)}</td>"
        f"<td class='ma-number'>{percent(entry.share)}</td></tr>"
        for entry in comparison.differences
    )
    table = (
        "<table><thead><tr><th scope='col'>Mask-Adapter says</th><th scope='col'>Mask pooling says</th>"
        f"<th scope='col'>for so much of it</th></tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p>No segment is called differently as a whole.</p>"
    )
    return (
        f'<section class="ma-comparison"><p>The same masks, classified in two ways: {share} of the picture is called '
        f'differently.</p><div class="ma-panels">{panels}<div>{table}</div></div></section>'
    )


def _name(label: str | None) -> str:
    return "nothing found" if label is None else f"{_swatch(label)} {escape(label)}"


def scenes_piece(scenes: Sequence[ExampleScene]) -> str:
    """A button for each example scene."""
    buttons = "".join(
        f'<button type="button" class="ma-scene" data-index="{index}" title="{escape(scene.title)}">'
        f'<img src="{data_address(scene.picture.resize((96, 96)))}" alt="Example scene {index + 1}: '
        f'{escape(scene.title)}"></button>'
        for index, scene in enumerate(scenes)
    )
    head = hint("Or take an example scene, with its labels:")
    return f'{head}<div class="ma-scenes" role="group" aria-label="Example scenes">{buttons}</div>'


__all__ = [
    "comparison_piece",
    "downloads_piece",
    "explanation_piece",
    "hint",
    "message",
    "percent",
    "scenes_piece",
]
