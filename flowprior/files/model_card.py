"""Model cards: the ``README.md`` of a shared model, with front matter for the hub."""

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ModelCard"]

TAGS = ("flowprior", "human-pose", "human-mesh-recovery", "normalizing-flow")
TASK = "pose-estimation"
NAME_LENGTH = 80


@dataclass(frozen=True)
class ModelCard:
    """Information about a model for its users.

    Attributes:
        name: Title, and the name that the example of :meth:`text` loads; the folder's if empty.
        license: License of the weights, as the hub spells it, such as ``"mit"``; omitted if None.
        description: Purpose of the model and meaning of its context, in Markdown.
        data: Description of the training data.
        metrics: Figures by name, with their unit in the name: ``{"MPJPE of the mode, mm": 80.2}``.
        usage: Markdown that replaces the two lines that load the model.
        tags: Additional tags for the hub.

    Raises:
        ValueError: If a metric is not a finite number.
    """

    name: str = ""
    license: str | None = None
    description: str = ""
    data: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    usage: str = ""
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if isinstance(value, str | bool) or not math.isfinite(value):
                raise ValueError(f"metric {name!r} must be a finite number, got {value!r}")

    def text(self, name: str, config: Mapping[str, Any], version: str) -> str:
        """The text of the card.

        Args:
            name: Used if the card has no name.
            config: The prior's configuration.
            version: Name and version of the library.

        Returns:
            The front matter, then Markdown.
        """
        name = self.name or name
        sections = [
            f"# {_line(name)}",
            self.description.strip() or f"A pose prior of {_context(config)}.{_mode(config)}",
            self.usage.strip() or _usage(name, config),
            "## Model\n\n" + _table({"": ""} | _facts(config) | {"written by": version}),
        ]
        if self.data:
            sections.append(f"## Data\n\n{self.data.strip()}")
        if self.metrics:
            figures = {key: f"{value:.6g}" for key, value in self.metrics.items()}
            sections.append("## Metrics\n\n" + _table({"metric": "value"} | figures))
        return self._front_matter(name, config, version) + "\n\n".join(sections) + "\n"

    def _front_matter(self, name: str, config: Mapping[str, Any], version: str) -> str:
        entries: dict[str, Any] = {
            "license": self.license,
            "library_name": "flowprior",
            "tags": [*dict.fromkeys((*TAGS, *self.tags))],
            "flowprior": {"version": version}
            | {key: config[key] for key in ("preset", "space", "layout", "joints")},
        }
        if self.metrics:
            data = textwrap.shorten(self.data, NAME_LENGTH, placeholder=" ...") or "unspecified"
            entries["model-index"] = [
                {
                    "name": name,
                    "results": [
                        {
                            "task": {"type": TASK},
                            "dataset": {"name": data, "type": _slug(data)},
                            "metrics": [
                                {"type": _slug(key), "name": key, "value": value}
                                for key, value in self.metrics.items()
                            ],
                        }
                    ],
                }
            ]
        # JSON is valid YAML, and its quoting keeps any name inside its string.
        lines = [
            f"{key}: {json.dumps(value, ensure_ascii=False)}"
            for key, value in entries.items()
            if value is not None
        ]
        return "\n".join(["---", *lines, "---", "", ""])


def _context(config: Mapping[str, Any]) -> str:
    what = "3D keypoints" if config["space"] == "points" else "joint rotations"
    over = " on SO(3)" if config["space"] == "so3" else ""
    width = config["context_features"]
    given = f" given a context of {width} numbers" if width else ""
    if config.get("kind") == "motion":
        given = " given the two poses before"
    return f"{config['joints']} {what}{over}{given}"


def _mode(config: Mapping[str, Any]) -> str:
    """A sentence on the mode of an anchored density; "" for another one."""
    if not config.get("anchored"):
        return ""
    where = "the centre passed with the context"
    if config.get("head_features"):
        where = f"the answer of its head, or {where}"
    base = " The latents follow a Student's t density." if config["base"] == "student_t" else ""
    return f" The density is anchored: its mode is exactly {where}.{base}"


def _usage(name: str, config: Mapping[str, Any]) -> str:
    package, model = "flowprior", "ConditionalPosePrior"
    if config.get("kind") == "motion":
        package, model = "flowprior.prior", "MotionPrior"
    return (
        f"```python\nfrom {package} import {model}\n\n"
        f"prior = {model}.from_pretrained({json.dumps(name, ensure_ascii=False)})\n```"
    )


def _facts(config: Mapping[str, Any]) -> dict[str, str]:
    return {key: f"`{value}`" for key, value in config.items()}


def _table(rows: Mapping[str, str]) -> str:
    (head, value), *others = rows.items()
    lines = [f"| {_cell(head)} | {_cell(value)} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {_cell(key)} | {_cell(text)} |" for key, text in others)])


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "value"
