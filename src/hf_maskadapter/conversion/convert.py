"""Released checkpoints → models of this package: the one function that does it all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .. import __version__
from ..files import replacing_folder, write_json
from ..model.configuration_clips import DenseClipConfig
from ..model.configuration_maskadapter import MaskAdapterConfig
from ..model.image_processing_maskadapter import MaskAdapterImageProcessorPil
from ..model.modeling_clip import DenseClipModel
from ..model.modeling_clip_convnext import ConvNextClipModel
from ..model.modeling_clip_resnet import ResNetClipModel
from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from ..model.processing_maskadapter import MaskAdapterProcessor
from ..model.vocabulary import label_sets
from .configs import build_config, read_sizes
from .errors import ConversionError
from .key_tables import StateDict, shorten
from .layouts import OPENCLIP, OPENCLIP_RESNET, Layout, convert_state_dict, fuse, recognize
from .presets import (
    ConversionSettings,
    Preset,
    choose_preset,
    find_preset,
    fitting_presets,
    has_effect,
    make_settings,
    read_settings,
    require_settings,
    settings_of_layout,
)
from .reading import read_checkpoint
from .saving import check_output
from .tokenizer import CONTEXT_LENGTH, build_clip_tokenizer

#: A Hub repository with CLIP's tokenizer, which OpenCLIP's ConvNeXt models share.
TOKENIZER_REPOSITORY = "openai/clip-vit-base-patch32"
#: The report that is saved beside a converted model.
REPORT_FILE = "conversion.json"

#: What a report says about a model that was saved without a tokenizer.
TOKENIZER_NOTE = (
    "there is no tokenizer with this model, so it cannot encode class names yet. Convert it again with tokenizer= "
    "(--tokenizer): CLIP's bpe_simple_vocab_16e6.txt.gz, or, with a connection to the Hub, "
    f"{TOKENIZER_REPOSITORY}."
)

#: What a conversion does, one after the other.
STAGES = ("reading", "renaming", "writing", "checking")

_PROBE_FILE = "tokenizer_config.json"
_PROBE_SECONDS = 5.0

#: Safetensors holds a file's bytes in memory once more while it writes it.
_SHARD_SIZE = "400MB"


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion found and did.

    Args:
        sources: checkpoint files with their sha256 checksums.
        layout: what the checkpoint is.
        preset: name of the preset, if there is one for this model.
        settings: what the weights could not tell: name → value.
        used: key of the checkpoint → names of the weights that it became.
        ignored: key of the checkpoint → why it was not needed.
        has_tokenizer: whether a tokenizer goes with the model.
        notes: what the user should know.
        output_dir: where the model was saved, if it was.
    """

    sources: dict[str, str | None]
    layout: str
    preset: str | None
    settings: dict[str, Any]
    used: dict[str, tuple[str, ...]]
    ignored: dict[str, str]
    has_tokenizer: bool
    notes: tuple[str, ...]
    output_dir: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON, without places on this machine."""
        record = dataclasses.asdict(self)
        del record["output_dir"]
        return {"package_version": __version__} | record

    def __str__(self) -> str:
        lines = [
            f"Converted {' + '.join(self.sources)}: {self.layout}"
            + (f", preset {self.preset}" if self.preset else ", settings as given"),
            f"{len(self.used)} weights used, {len(self.ignored)} not needed",
            *(f"  {key}: {reason}" for key, reason in _grouped(self.ignored).items()),
            *(f"Note: {note}" for note in self.notes),
        ]
        if self.output_dir is not None:
            lines.append(f"Saved in {self.output_dir}")
        return "\n".join(lines)


def _grouped(ignored: Mapping[str, str]) -> dict[str, str]:
    keys_of: dict[str, list[str]] = {}
    for key, reason in ignored.items():
        keys_of.setdefault(reason, []).append(key)
    return {shorten(keys): reason for reason, keys in keys_of.items()}


class Conversion(NamedTuple):
    """Result of [`convert_checkpoint`].

    Args:
        model: the model, in fp32 and evaluation mode.
        image_processor: its image processor.
        processor: image processor and tokenizer in one; `None` without a tokenizer.
        report: what was found and done.
    """

    model: DenseClipModel | MaskAdapterForOpenVocabularySegmentation
    image_processor: MaskAdapterImageProcessorPil
    processor: MaskAdapterProcessor | None
    report: ConversionReport


def convert_checkpoint(
    source: str | os.PathLike[str],
    output_dir: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    generator_from: str | os.PathLike[str] | None = None,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerBase | None = None,
    *,
    overwrite: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    on_stage: Callable[[str], None] | None = None,
    **settings: Any,
) -> Conversion:
    """Convert a released checkpoint, exactly and completely.

    OpenCLIP's ConvNeXt CLIPs become a [`ConvNextClipModel`], OpenAI's ResNet CLIPs, from OpenAI's or OpenCLIP's state
    dict, a [`ResNetClipModel`]; FC-CLIP and MAFT+, both with or without Mask-Adapter, and
    Mask-Adapter's warm-up checkpoints a [`MaskAdapterForOpenVocabularySegmentation`]. What a file is, and every size,
    is read from its weights. What weights cannot tell comes from `settings`, else from `config`, else from the preset.

    Example:
    ```python
    converted = convert_checkpoint("mask_adapter.pth", "model", tokenizer="bpe_simple_vocab_16e6.txt.gz")
    print(converted.report)
    ```

    Args:
        source: a local file, or a file on the Hub: `owner/name:path/in/repository` or `hf://owner/name/path`.
        output_dir: folder to save model, processor and report in; it appears complete or not at all.
        preset: name of the released model, see [`PRESETS`]; by default the one that layout and sizes identify, which
            the report names together with any others that they fit.
        config: settings as a dict or JSON file: the fields of [`ConversionSettings`], or an `open_clip_config.json`.
        generator_from: for a warm-up checkpoint, the FC-CLIP or MAFT+ checkpoint (a source as above) whose mask
            generator and void embedding complete it ("weight fusing"). Refused if either is complete already.
        tokenizer: CLIP's `bpe_simple_vocab_16e6.txt.gz`, a folder or Hub repository with a tokenizer, or a tokenizer.
            By default, when something is saved, that of [`TOKENIZER_REPOSITORY`] if the Hub can be reached; if not, the
            model is saved without and the report says so.
        overwrite: whether `output_dir` may be a folder with a model, which is replaced once the new one is complete.
        revision: branch, tag or commit of sources on the Hub.
        token: access token for the Hub.
        on_stage: told when each of [`STAGES`] begins; the last two only if something is saved.
        **settings: fields of [`ConversionSettings`], such as `text_heads=12`.

    Raises:
        ConversionError: if anything is wrong with the files, the preset or the settings. Nothing is written.
        OSError: if the output cannot be written. Nothing is left behind.
    """
    output = None if output_dir is None else check_output(output_dir, overwrite)
    explicit = read_settings(config).updated(make_settings(settings, "The call"))
    wanted = None if preset is None else find_preset(preset)

    begin = on_stage or (lambda _: None)
    begin("reading")
    checkpoint = read_checkpoint(source, revision, token)
    sources, source_state, ignored = {checkpoint.name: checkpoint.sha256}, checkpoint.state, dict(checkpoint.ignored)
    if generator_from is not None:
        other = read_checkpoint(generator_from, revision, token)
        other_name = other.name if other.name != checkpoint.name else f"{other.name} (generator_from)"
        source_state, left_out = fuse(source_state, other.state, checkpoint.name, other_name)
        sources[other_name] = other.sha256
        ignored |= left_out | {f"{other_name}: {key}": reason for key, reason in other.ignored.items()}

    begin("renaming")
    name = " + ".join(sources)
    layout = recognize(source_state, name)
    weights = convert_state_dict(source_state, layout, name)
    sizes = read_sizes(weights.state, layout)
    chosen = choose_preset(wanted, layout, sizes)
    final = settings_of_layout(layout)
    if chosen is not None:
        final = final.updated(chosen.settings_for(layout))
    final = final.updated(explicit)
    require_settings(final, layout)
    model_config = build_config(sizes, layout, final)
    model_class = model_class_of(layout)
    check_weights(model_class, model_config, weights.state, name)
    model = _load(model_class, model_config, weights.state)

    clip_config: Any = model_config if isinstance(model_config, DenseClipConfig) else model_config.clip_config
    image_processor = _build_image_processor(final, clip_config.size_divisor)
    clip_tokenizer = read_tokenizer(
        tokenizer,
        try_hub=output is not None,
        token=token,
        max_length=clip_config.text_config.max_position_embeddings,
    )
    processor = None
    if clip_tokenizer is not None:
        _check_tokenizer(clip_tokenizer, clip_config.text_config)
        processor = MaskAdapterProcessor(image_processor, clip_tokenizer, final.prompt_templates)
    report = ConversionReport(
        sources=sources,
        layout=layout.title,
        preset=None if chosen is None else chosen.name,
        settings=_recorded(final),
        used=weights.targets,
        ignored=ignored | weights.ignored,
        has_tokenizer=processor is not None,
        notes=tuple(
            [
                *(_notes_on_presets(fitting_presets(layout, sizes), layout) if wanted is None else []),
                *_notes_on_settings(layout, final, explicit),
                *([TOKENIZER_NOTE] if output is not None and processor is None else []),
            ]
        ),
        output_dir=None if output is None else os.fspath(output),
    )
    if output is not None:
        with replacing_folder(output) as folder:
            begin("writing")
            _write(folder, model, processor or image_processor, report)
            begin("checking")
            _require_saved(folder, model, weights.state)
    return Conversion(model, image_processor, processor, report)


def model_class_of(layout: Layout) -> type[PreTrainedModel]:
    """Class of the model that a checkpoint of a layout becomes."""
    classes: dict[str, type[PreTrainedModel]] = {
        OPENCLIP.name: ConvNextClipModel,
        OPENCLIP_RESNET.name: ResNetClipModel,
    }
    return classes.get(layout.name, MaskAdapterForOpenVocabularySegmentation)


def check_weights(
    model_class: type[PreTrainedModel], config: DenseClipConfig | MaskAdapterConfig, state: StateDict, name: str
) -> None:
    """Check that a state dict has exactly the weights of a model, in their shapes.

    Args:
        model_class: the model's class.
        config: its configuration.
        state: converted state dict, real or on the meta device.
        name: what to call the checkpoint in messages.

    Raises:
        ConversionError: if weights are missing, superfluous or of another shape.
    """
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in model_class(config).state_dict().items()}
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    if missing:
        raise ConversionError(
            f"{name} is incomplete: {len(missing)} weights of such a model are missing, {shorten(missing)}. Fetch it "
            "again, or give the complete released checkpoint."
        )
    if unexpected:
        raise ConversionError(f"{name} holds weights that such a model does not have: {shorten(unexpected)}.")
    wrong = [
        f"{key} is {tuple(state[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if tuple(state[key].shape) != shape
    ]
    if wrong:
        raise ConversionError(f"{name} contradicts itself, {len(wrong)} weights have other sizes: {shorten(wrong)}.")


def _load(
    model_class: type[PreTrainedModel], config: DenseClipConfig | MaskAdapterConfig, state: dict[str, Tensor]
) -> Any:
    model, loading = model_class.from_pretrained(
        None, config=config, state_dict=dict(state), dtype=torch.float32, output_loading_info=True
    )
    problems = {kind: entries for kind, entries in loading.items() if entries}
    if problems:
        raise ConversionError(f"Transformers did not load every weight: {problems}.")
    _require_equal(model.state_dict(), state, "loaded")
    return model


def _require_equal(found: StateDict, expected: StateDict, what: str) -> None:
    different = [key for key in expected if key not in found or not torch.equal(found[key], expected[key])]
    if different or found.keys() != expected.keys():
        raise ConversionError(f"The {what} model is not the converted one: {shorten(different)} differ.")


def _require_saved(folder: Path, model: PreTrainedModel, state: StateDict) -> None:
    """Compare what lies on disk tensor by tensor, mapped: a second whole model would double the memory."""
    saved = type(model.config).from_pretrained(folder)
    saved.name_or_path = model.config.name_or_path
    if saved.to_dict() != model.config.to_dict():
        raise ConversionError("The saved configuration is not the converted one.")
    different, found = [], set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 -- safe_open is no mapping
                found.add(key)
                if key not in state or not torch.equal(file.get_tensor(key), state[key]):
                    different.append(key)
    different += sorted(state.keys() - found)
    if different:
        raise ConversionError(f"The saved model is not the converted one: {shorten(different)} differ.")


def _write(
    folder: Path,
    model: PreTrainedModel,
    processor: MaskAdapterProcessor | MaskAdapterImageProcessorPil,
    report: ConversionReport,
) -> None:
    model.save_pretrained(folder, save_original_format=False, max_shard_size=_SHARD_SIZE)
    processor.save_pretrained(folder)
    write_json(folder / REPORT_FILE, report.to_dict(), indent=1)


def read_tokenizer(
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerBase | None,
    *,
    try_hub: bool = True,
    token: str | bool | None = None,
    max_length: int = CONTEXT_LENGTH,
) -> PreTrainedTokenizerBase | None:
    """CLIP's tokenizer.

    Args:
        tokenizer: its byte-pair file, a folder or Hub repository with one, a tokenizer, or `None`.
        try_hub: whether `None` stands for that of [`TOKENIZER_REPOSITORY`].
        token: access token for the Hub.
        max_length: tokens that the text tower reads, start and end included.

    Returns:
        The tokenizer; `None` if none was given and the Hub has none.

    Raises:
        ConversionError: if what was given cannot be read.
    """
    if tokenizer is None:
        return _fetch_tokenizer(max_length, token) if try_hub else None
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        return tokenizer
    try:
        if Path(tokenizer).is_file():
            return build_clip_tokenizer(tokenizer)
        return CLIPTokenizer.from_pretrained(tokenizer, token=token, model_max_length=max_length)
    except (OSError, ValueError) as error:
        raise ConversionError(f"The tokenizer {tokenizer} cannot be read: {error}") from error


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, text_config: Any) -> None:
    if len(tokenizer) != text_config.vocab_size:
        raise ConversionError(
            f"The tokenizer has {len(tokenizer)} tokens, but the checkpoint's text tower {text_config.vocab_size}: "
            "give the tokenizer that it was trained with (tokenizer=, --tokenizer)."
        )


def _fetch_tokenizer(max_length: int, token: str | bool | None) -> PreTrainedTokenizerBase | None:
    """CLIP's tokenizer from the Hub or the local cache; the Hub is asked once, as its client's retries take minutes."""
    try:
        get_hf_file_metadata(hf_hub_url(TOKENIZER_REPOSITORY, _PROBE_FILE), timeout=_PROBE_SECONDS)
        is_reachable = True
    except Exception:  # of whichever HTTP library the Hub's client uses
        is_reachable = False
    if not is_reachable and not isinstance(try_to_load_from_cache(TOKENIZER_REPOSITORY, _PROBE_FILE), str):
        return None
    try:
        return CLIPTokenizer.from_pretrained(
            TOKENIZER_REPOSITORY, token=token, model_max_length=max_length, local_files_only=not is_reachable
        )
    except (OSError, ValueError):
        return None


def _build_image_processor(settings: ConversionSettings, size_divisor: int) -> MaskAdapterImageProcessorPil:
    given = settings.given()
    options: dict[str, Any] = {name: list(given[name]) for name in ("image_mean", "image_std") if name in given}
    size = {name: given[name] for name in ("shortest_edge", "longest_edge") if name in given}
    if size:
        options["size"] = size
    return MaskAdapterImageProcessorPil(size_divisor=size_divisor, **options)


def _recorded(settings: ConversionSettings) -> dict[str, Any]:
    recorded = settings.given()
    if "training_vocabulary" in recorded and recorded["training_vocabulary"] not in label_sets():
        recorded["training_vocabulary"] = settings.read_training_vocabulary()
    return recorded


def _notes_on_presets(fitting: Sequence[Preset], layout: Layout) -> list[str]:
    if not fitting:
        return []
    recognized, *others = fitting
    notes = [f"layout and sizes are those of {recognized.title}: its preset fills in what was not given."]
    if others:
        titles = [
            f"{preset.title}{'' if preset.layout == layout else ', a part left out'} (preset {preset.name})"
            for preset in others
        ]
        notes.append(f"the weights cannot tell it from {'; '.join(titles)}: name that preset if it is that model.")
    return notes


def _notes_on_settings(layout: Layout, settings: ConversionSettings, explicit: ConversionSettings) -> list[str]:
    notes = []
    if isinstance(settings.training_vocabulary, str) and explicit.training_vocabulary is None:
        notes.append(
            f"a class counts as seen in training if one of its names is in the label set "
            f"{settings.training_vocabulary}. The published results used longer lists of synonyms, FC-CLIP's "
            "*_with_prompt_eng.txt: give that file as training_vocabulary to repeat them."
        )
    without_effect = [name for name in explicit.given() if not has_effect(name, layout)]
    if without_effect:
        notes.append(f"settings without effect on such a model: {', '.join(without_effect)}.")
    return notes


__all__ = [
    "REPORT_FILE",
    "STAGES",
    "TOKENIZER_REPOSITORY",
    "Conversion",
    "ConversionReport",
    "check_weights",
    "convert_checkpoint",
    "read_tokenizer",
]
