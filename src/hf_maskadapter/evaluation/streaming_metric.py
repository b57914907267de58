"""The stateful side of the metrics: an `evaluate.Metric` that counts each sample when it is added."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from .functional.label_maps import SampleId

try:
    import evaluate
except ImportError as error:
    raise ImportError(
        "The metrics of hf_maskadapter.evaluation are `evaluate.Metric` classes and need Hugging Face Evaluate: "
        "pip install 'hf-maskadapter[eval]'. (hf_maskadapter.evaluation.functional works without it.)"
    ) from error

if not hasattr(evaluate, "Metric"):
    raise ImportError(
        f"{evaluate.__file__} hides Hugging Face Evaluate, the package of its name: take its folder out of sys.path."
    )

if TYPE_CHECKING:
    from accelerate import Accelerator


class MetricState(Protocol):
    """What a metric keeps: sums that add up exactly, in any order and division into parts."""

    num_samples: int

    def add(self, other: Any) -> None:
        """Adds another state in place."""

    def state_dict(self) -> dict[str, Any]:
        """The state as plain lists, numbers and strings."""

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """The state from the result of `state_dict`."""


class StreamingMetric(evaluate.Metric, abc.ABC):
    """An `evaluate.Metric` without a spool: memory does not grow with pictures, and nothing is written to disk.

    `add`, `add_batch` and `compute` work as in Evaluate (`compute` starts anew afterwards). Beyond it: `result`
    computes without starting anew, `reduce` sums over the processes of an Accelerator, and
    `state_dict`/`load_state_dict` make an evaluation resumable (also through `accelerator.register_for_checkpointing`).

    Args:
        options: Arguments of `compute` that may be given once, here, instead. With them a bad sample is reported when
            it is added, without them when the result is computed.
        **kwargs: `evaluate.Metric`'s own arguments. ``num_process`` must be 1: processes meet in `reduce`.
    """

    def __init__(self, options: Mapping[str, Any], **kwargs: Any):
        if kwargs.get("num_process", 1) != 1:
            raise ValueError(
                f"{type(self).__name__} does not exchange predictions through the file system (num_process="
                f"{kwargs['num_process']}): make it with num_process=1 in each process and call `reduce(accelerator)`."
            )
        super().__init__(**kwargs)
        self._options = dict(options)
        self._state = self._new_state()

    @staticmethod
    @abc.abstractmethod
    def _new_state() -> MetricState:
        """An empty state."""

    @abc.abstractmethod
    def _count(self, prediction: Any, reference: Any, sample_id: SampleId) -> MetricState:
        """The state of one sample; raises on bad input."""

    @abc.abstractmethod
    def _result(self, state: MetricState, **options: Any) -> dict[str, Any]:
        """The metric's values."""

    def _build_data_dir(self) -> str:
        return self._data_dir_root

    def download_and_prepare(self, download_config: Any = None, dl_manager: Any = None) -> None:
        """Does nothing: there is nothing to download."""

    def __len__(self) -> int:
        """Samples counted since the metric was made or `compute` was called."""
        return self._state.num_samples

    @property
    def state(self) -> MetricState:
        """The counts themselves, for the functions of `hf_maskadapter.evaluation.functional`."""
        return self._state

    def add(
        self, *, prediction: Any = None, reference: Any = None, sample_id: SampleId | None = None, **kwargs: Any
    ) -> None:
        """Counts one sample.

        Args:
            prediction: What the model gave.
            reference: What is annotated.
            sample_id: What messages call the sample (a file name, say); by default its running number.
            **kwargs: `predictions` and `references`, as `evaluate` calls them.
        """
        self.add_batch(
            predictions=[kwargs.pop("predictions", prediction)],
            references=[kwargs.pop("references", reference)],
            sample_ids=None if sample_id is None else [sample_id],
            **kwargs,
        )

    def add_batch(
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        sample_ids: Sequence[SampleId] | None = None,
        **kwargs: Any,
    ) -> None:
        """Counts a batch; either all of it or, if a sample is bad, none.

        Args:
            predictions: One prediction per sample.
            references: One annotation per sample.
            sample_ids: What messages call the samples; by default their running numbers.
            **kwargs: None; others are refused in the words of `evaluate`.

        Raises:
            ValueError: A column is missing, another one is given, or their lengths differ.
        """
        if kwargs:
            raise ValueError(f"Bad inputs for metric: {list(kwargs)}. All required inputs are {self._feature_names()}")
        for name, column in (("predictions", predictions), ("references", references)):
            if column is None:
                raise ValueError(f"The {name} are missing (None).")
        if len(predictions) != len(references):
            raise ValueError(
                f"Mismatch in the number of predictions ({len(predictions)}) and references ({len(references)})"
            )
        if sample_ids is None:
            sample_ids = range(len(self), len(self) + len(predictions))
        elif len(sample_ids) != len(predictions):
            raise ValueError(
                f"Mismatch in the number of predictions ({len(predictions)}) and sample_ids ({len(sample_ids)})"
            )
        parts = [
            self._count(prediction, reference, sample_id)
            for prediction, reference, sample_id in zip(predictions, references, sample_ids, strict=True)
        ]
        for part in parts:
            self._state.add(part)

    def compute(
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        sample_ids: Sequence[SampleId] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Counts the given samples, if any, computes the result and starts anew.

        Args:
            predictions: One prediction per sample, or None if all were added before.
            references: One annotation per sample, or None.
            sample_ids: What messages call the samples.
            **options: See the class; those given here prevail over those given when the metric was made.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references, sample_ids=sample_ids)
        result = self.result(**options)
        self.reset()
        return result

    def result(self, **options: Any) -> dict[str, Any]:
        """The result of what was counted so far; counting can go on.

        Raises:
            ValueError: Nothing was counted.
        """
        if len(self) == 0:
            raise ValueError("Nothing was counted: call `add` or `add_batch` at least once before `compute`.")
        return self._result(self._state, **{**self._options, **options})

    def reset(self) -> None:
        """Forgets what was counted."""
        self._state = self._new_state()

    def merge(self, other: StreamingMetric) -> None:
        """Adds what another metric of the same class counted."""
        self._state.add(other._state)

    def reduce(self, accelerator: Accelerator) -> Self:
        """The sum over all processes, as a new metric in each of them; this one keeps its own counts.

        All processes must call it. Counts are integers, so that the result is exactly that of one process.
        """
        from accelerate.utils import gather_object

        reduced = type(self)(**self._options)
        states = [self._state] if accelerator.num_processes == 1 else gather_object([self._state])
        for state in states:
            reduced._state.add(state)
        return reduced

    def state_dict(self) -> dict[str, Any]:
        """What was counted, as plain lists, numbers and strings."""
        return self._state.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Replaces what was counted by the result of `state_dict`."""
        self._state = type(self._new_state()).from_state_dict(state_dict)
