"""The page: Gradio's widgets, and what happens when they are used.

Results reach the browser inside the page's own messages, never as files. Uploaded pictures are files of Gradio's, which
are deleted when the page that shows them shows another one or is closed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image

from ..model.pictures import read_picture
from ..model.post_processing_maskadapter import TASKS
from ..model.vocabulary import label_sets
from . import pieces
from .downloads import downloads
from .labels import describe_labels, read_labels
from .models import AppModels
from .scenes import example_scenes
from .segmenting import METHODS, Wish, compare_methods, segment_picture
from .sessions import Sessions, ShownResult
from .settings import AppSettings
from .viewing import shown_picture, viewer_value

TITLE = "Mask-Adapter"
OWN_LABELS = "my own labels"

_MENDABLE = (ValueError, OSError, ImportError)
_CHOOSE = "Choose a segment, in the picture or in the list, to see why it has its label."
_COMPARE = "Mask pooling and the Mask-Adapter, side by side, appear here: press Compare."
_COME_TO_TOLD = "() => { document.querySelector('#ma-told').scrollIntoView({block: 'nearest', behavior: 'smooth'}); }"
_COME_TO_EXPLANATION = (  # on a phone, where it lies below the list
    "() => { if (window.innerWidth < 700) "
    "document.querySelector('#ma-explanation').scrollIntoView({block: 'start', behavior: 'smooth'}); }"
)
_FILE_AGE = 3600  # seconds after which a file goes, whatever became of its page


@dataclass(frozen=True)
class Upload:
    """An uploaded picture: where it lies, and what its owner calls it."""

    file: Path
    name: str


def _as_upload(payload: Any) -> Upload | None:
    """What Gradio has checked to be an upload of this app, untouched: the package opens pictures itself.

    Gradio's own preparation decodes the picture whatever its size, drops transparency and compresses it again.
    """
    if payload is None or not payload.path:
        return None
    return Upload(Path(payload.path), payload.orig_name or "picture.png")


class AppHandlers:
    """What happens when the page is used, apart from the widgets.

    Args:
        settings: the app's.
        models: the models that it offers.
        sessions: the open pages.
    """

    def __init__(self, settings: AppSettings, models: AppModels, sessions: Sessions) -> None:
        self._settings, self._models, self._sessions = settings, models, sessions

    def segment(
        self,
        upload: Upload | None,
        labels: str,
        label_set: str,
        things: str,
        task: str,
        model: str,
        method: str,
        threshold: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio recognizes it
    ) -> tuple[Any, ...]:
        """Segment the picture: message, viewer, explanation, downloads, and the tab to show."""

        def work() -> tuple[Any, ...]:
            self._sessions.uploaded(request.session_hash or "", None if upload is None else upload.file)
            wish = self._wish(upload, labels, label_set, things, task, method, threshold)
            loaded = self._models.get(model, lambda line: progress(0.0, desc=line))
            progress(0.5, desc="Segmenting …")
            result = segment_picture(loaded, wish)
            picture = shown_picture(wish.picture)
            self._sessions.keep(request.session_hash or "", ShownResult(picture, result.explanations, result.method))
            number = len(result.segments)
            text = f"{number} {'segment' if number == 1 else 'segments'}; {describe_labels(wish.vocabulary)}."
            told = pieces.message(result.warning, "warning") + pieces.message(text)
            files = pieces.downloads_piece(downloads(picture, result.segments, model))
            advice = pieces.hint(_CHOOSE) if number else ""
            return told, viewer_value(picture, result), advice, files, gr.Tabs(selected="segments")

        return self._or_message(work, others=4)

    def compare(
        self,
        upload: Upload | None,
        labels: str,
        label_set: str,
        things: str,
        task: str,
        model: str,
        method: str,  # noqa: ARG002 - both are shown
        threshold: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        """Compare pooling with the adapter: message, comparison, and the tab to show."""

        def work() -> tuple[Any, ...]:
            self._sessions.uploaded(request.session_hash or "", None if upload is None else upload.file)
            wish = self._wish(upload, labels, label_set, things, task, "adapter", threshold)
            loaded = self._models.get(model, lambda line: progress(0.0, desc=line))
            progress(0.5, desc="Segmenting twice …")
            comparison = compare_methods(loaded, wish)
            shown = pieces.comparison_piece(shown_picture(wish.picture), comparison)
            told = pieces.message(comparison.warning, "warning") + pieces.message(describe_labels(wish.vocabulary))
            return told, shown, gr.Tabs(selected="comparison")

        return self._or_message(work, others=2)

    def explain(self, request: gr.Request, event: gr.SelectData) -> str:
        """Tell about the segment that was chosen."""
        try:
            result = self._sessions.result(request.session_hash or "")
            explanation = result.explanations[int(event.index)]  # type: ignore[arg-type]
        except (ValueError, IndexError) as error:
            return pieces.message(str(error), "error")
        return pieces.explanation_piece(result.picture, explanation, result.method)

    def uploaded(self, upload: Upload | None, request: gr.Request) -> str:
        """Take note of a picture, and tell at once if it is none."""
        self._sessions.uploaded(request.session_hash or "", None if upload is None else upload.file)
        if upload is None:
            return ""
        return self._or_message(lambda: (self._read(upload) and "",), others=0)[0]

    def scene(self, event: gr.SelectData) -> tuple[Any, ...]:
        """An example scene and its labels: picture, label set, labels, things, and the message."""
        scene = example_scenes()[int(event.index)]  # type: ignore[arg-type]
        return scene.picture, OWN_LABELS, scene.labels, scene.things, ""

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self._sessions.forget(request.session_hash or "")

    def _wish(
        self,
        upload: Upload | None,
        labels: str,
        label_set: str,
        things: str,
        task: str,
        method: str,
        threshold: float,
    ) -> Wish:
        if upload is None:
            raise ValueError("Choose a picture first: drop one, paste one, take one, or take an example scene.")
        chosen = None if label_set == OWN_LABELS else label_set
        vocabulary = read_labels(labels or "", chosen, things or "", self._settings.max_names)
        picture = self._read(upload)
        return Wish(picture, vocabulary, task, method, float(threshold or 0), upload.name)  # type: ignore[arg-type]

    def _read(self, upload: Upload) -> Image.Image:
        try:
            return read_picture(upload.file, max_pixels=self._settings.max_pixels)
        except FileNotFoundError:
            raise ValueError("The picture is kept no more: choose it again.") from None
        except ValueError as error:
            raise ValueError(str(error).replace(str(upload.file), upload.name)) from error

    @staticmethod
    def _or_message(work: Callable[[], tuple[Any, ...]], others: int) -> tuple[Any, ...]:
        """What the work returns; or the error's sentence, and everything else as it was."""
        try:
            return work()
        except torch.OutOfMemoryError:
            text = "There is too little memory for this picture: make it smaller, or look for fewer labels."
        except _MENDABLE as error:
            text = " ".join(str(error).split())
        except Exception:  # Gradio would show the word "Error" and nothing else
            traceback.print_exc()
            text = "The app itself has a fault; the terminal in which it runs tells more."
        return pieces.message(text, "error"), *[gr.skip()] * others


def build_app(settings: AppSettings, models: AppModels | None = None) -> gr.Blocks:
    """The page.

    Args:
        settings: what it offers, and its limits.
        models: by default those that the settings name.
    """
    models = AppModels(settings.models, settings.device) if models is None else models
    handlers = AppHandlers(settings, models, Sessions(settings.max_sessions))
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=False, delete_cache=(60, _FILE_AGE)) as app:
        gr.Markdown(
            "# Say what to look for\nA picture and words of your choice: named segments, and why each has its name. "
            "Nothing is kept: pictures and results go when the page is closed."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                picture = gr.Image(
                    type="filepath",
                    image_mode=None,
                    format="png",
                    sources=["upload", "clipboard", "webcam"],
                    label="Picture: drop, paste or photograph one",
                    alt_text="The picture to segment",
                    height=300,
                    buttons=[],
                    elem_id="ma-picture-input",
                )
                picture.preprocess = _as_upload  # type: ignore[assignment]
                scenes = _html(
                    pieces.scenes_piece(example_scenes()), js_on_load=_static("scenes.js"), elem_id="ma-scenes"
                )
                label_set = gr.Dropdown(
                    [OWN_LABELS, *label_sets()], value=OWN_LABELS, label="What to look for", elem_id="ma-label-set"
                )
                labels = gr.Textbox(
                    "",
                    lines=5,
                    max_lines=12,
                    label="Labels",
                    info="One a line, synonyms separated by commas. A single line: labels separated by commas.",
                    placeholder="cat, kitten\nsofa\nwall",
                    elem_id="ma-labels",
                )
                task = gr.Radio(
                    [("a label for each pixel", TASKS[0]), ("things and stuff", TASKS[1]), ("single things", TASKS[2])],
                    value=TASKS[0],
                    label="Task: semantic, panoptic or instance",
                    elem_id="ma-task",
                )
                threshold = gr.Slider(
                    0,
                    1,
                    value=0,
                    step=0.01,
                    visible=False,
                    label="Least score of a segment",
                    info="0: the model's own",
                    elem_id="ma-threshold",
                )
                with gr.Accordion("Model and method", open=False, elem_id="ma-more"):
                    model = gr.Dropdown(models.choices(), value=models.names[0], label="Model", elem_id="ma-model")
                    method = gr.Radio(
                        [("Mask-Adapter", METHODS[0]), ("mask pooling", METHODS[1]), ("crops", METHODS[2])],
                        value=METHODS[0],
                        label="How masks are classified",
                        elem_id="ma-method",
                    )
                    things = gr.Textbox(
                        "",
                        label="Countable labels",
                        info="Separated by commas; all others become stuff, of which there is one segment. Empty: all "
                        "are countable, or what the label set says.",
                        elem_id="ma-things",
                    )
                start = gr.Button("Segment", variant="primary", elem_id="ma-segment")
                comparing = gr.Button("Compare with pooling", elem_id="ma-compare")
            with gr.Column(scale=3, min_width=320):
                told = _html(elem_id="ma-told")
                with gr.Tabs(selected="segments", elem_id="ma-tabs") as tabs:
                    with gr.Tab("Segments", id="segments"):
                        viewer = _html(
                            html_template=_static("viewer.html"), js_on_load=_static("viewer.js"), elem_id="ma-viewer"
                        )
                        explanation = _html(elem_id="ma-explanation")
                        files = _html(elem_id="ma-files")
                    with gr.Tab("Adapter against pooling", id="comparison"):
                        comparison = _html(pieces.hint(_COMPARE), elem_id="ma-comparison")
        inputs = [picture, labels, label_set, things, task, model, method, threshold]
        one_at_a_time: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
        quiet: dict[str, Any] = {"api_visibility": "undocumented", "show_progress": "hidden"}
        segmented = start.click(
            handlers.segment,
            inputs,
            [told, viewer, explanation, files, tabs],
            api_name="segment",
            api_visibility="undocumented",
            show_progress_on=[told],
            **one_at_a_time,
        )
        compared = comparing.click(
            handlers.compare,
            inputs,
            [told, comparison, tabs],
            api_name="compare",
            api_visibility="undocumented",
            show_progress_on=[told],
            **one_at_a_time,
        )
        explained = viewer.select(handlers.explain, None, explanation, **quiet)
        for done in (segmented, compared):
            done.then(None, js=_COME_TO_TOLD)
        explained.then(None, js=_COME_TO_EXPLANATION)
        scenes.select(handlers.scene, None, [picture, label_set, labels, things, told], **quiet)
        picture.change(handlers.uploaded, picture, told, **quiet)
        label_set.change(lambda name: gr.update(visible=name == OWN_LABELS), label_set, labels, **quiet)
        task.change(lambda name: gr.update(visible=name != TASKS[0]), task, threshold, **quiet)
        app.unload(handlers.leave)
    app.queue(max_size=settings.max_waiting, default_concurrency_limit=4, api_open=False)
    return app


def launch_options(settings: AppSettings) -> dict[str, Any]:
    """What `Blocks.launch` is told, so that nothing is kept, fetched from elsewhere or sent there."""
    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "max_file_size": settings.max_upload_bytes,
        "prevent_thread_lock": True,
        "quiet": True,
        "share": False,
        "show_error": False,
        "footer_links": [],
        "run_history": False,  # Gradio keeps each run's pictures and results in the browser otherwise
        "enable_monitoring": False,
        "pwa": False,
        "mcp_server": False,
        "ssr_mode": False,
        "css": _static("app.css"),
        "theme": _theme(),
    }


def _theme() -> gr.themes.Base:
    """The documentation's colours, the reader's own fonts, and small print that is dark enough to be read."""
    theme = gr.themes.Default(
        primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    faint, on_dark = "*neutral_600", "*neutral_300"
    return theme.set(
        body_text_color_subdued=faint,
        body_text_color_subdued_dark=on_dark,
        block_info_text_color=faint,
        block_info_text_color_dark=on_dark,
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
    )


def _html(value: str | None = None, **options: Any) -> gr.HTML:
    """A piece of the page with the app's own style alone."""
    return gr.HTML(value, apply_default_css=False, **options)


def _static(name: str) -> str:
    return resources.files(__package__).joinpath("static", name).read_text(encoding="utf-8")


__all__ = ["AppHandlers", "Upload", "build_app", "launch_options"]
