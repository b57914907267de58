"""Label Studio's labeling interface read: which controls there are, what their labels mean, where the picture is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from .errors import ExchangeError

CONFIG_FILE = "label_config.xml"
_VARIABLE = re.compile(r"\$([\w.\-]+)")


@dataclass(frozen=True)
class LabelingInterface:
    """What results refer to.

    Args:
        labels: for each control the class of each text that results may hold: a label's alias, else its value.
        data_keys: for each picture of the interface the key of a task's data that holds its address.
    """

    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    data_keys: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The classes in their order; several controls may offer the same."""
        return list(dict.fromkeys(name for labels in self.labels.values() for name in labels.values()))

    def class_of(self, control: str | None, text: str) -> str | None:
        """The class of a text in a control's results.

        Args:
            control: the control's name; if the interface has no such one, any will do.
            text: what the result holds.

        Returns:
            The class's name, `None` if there is none.
        """
        if control in self.labels and text in self.labels[control]:
            return self.labels[control][text]
        return next((labels[text] for labels in self.labels.values() if text in labels), None)


def read_interface(path: Path) -> LabelingInterface:
    """Read a labeling interface.

    Raises:
        ExchangeError: if it cannot be read, or a label has no name.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, UnicodeError, LookupError) as error:
        raise ExchangeError(f"{path} is no labeling interface: {error}.") from error
    images = {element.get("name", ""): element.get("value", "") for element in root.iter("Image")}
    keys = {name: match[1] for name, value in images.items() if (match := _VARIABLE.search(value))}
    labels: dict[str, dict[str, str]] = {}
    for control in root.iter():
        targets = [target.strip() for target in (control.get("toName") or "").split(",")]
        is_for_pictures = not images or control.get("toName") is None or any(target in images for target in targets)
        if not control.tag.endswith("Labels") or not is_for_pictures:
            continue
        name = control.get("name") or control.tag
        of_control = read_labels(control, str(path))
        if of_control:
            labels.setdefault(name, {}).update(of_control)
    return LabelingInterface(labels, keys)


def read_labels(control: ElementTree.Element, where: str) -> dict[str, str]:
    """The class of each text that a control's results may hold: a label's alias, else its value.

    Args:
        control: the control's tag.
        where: for messages.

    Raises:
        ExchangeError: if a label has no value.
    """
    labels = {}
    for label in control.iter("Label"):
        value = label.get("value")
        if not value:
            raise ExchangeError(f"{where}: a label of the control {control.get('name') or control.tag!r} has no value.")
        labels[label.get("alias") or value] = value
    return labels


__all__ = ["CONFIG_FILE", "LabelingInterface", "read_interface", "read_labels"]
