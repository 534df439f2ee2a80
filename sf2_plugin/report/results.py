"""What a model answered on a set, with what is needed to show it: names, faces, captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ..data import PairSet
from ..evaluation import (
    CalibrationReport,
    IdentificationReport,
    PairReport,
    TemplateReport,
    best_common_threshold,
)
from ..evaluation.ijb import IjbImages, IjbPairs
from ..evaluation.input_checks import Pixels
from .page import Face


@dataclass
class PairResult:
    """One model on one pair set."""

    model: str
    set_name: str
    report: PairReport
    pair_set: PairSet | None
    calibrations: dict[str, CalibrationReport] = field(default_factory=dict)
    """before, perhaps stored, and after the refit; all on the same pairs."""
    calibration_pairs: str = ""
    """Which pairs they are."""
    no_refit: str = ""
    """Why there is no refit."""

    @property
    def doubts(self) -> list[str]:
        """Why probabilities are not to be used, by their name."""
        found = [
            f"{name}: {doubt}" for name, of in self.calibrations.items() for doubt in of.doubts
        ]
        return found + [f"no refit: {self.no_refit}"] * bool(self.no_refit)

    @property
    def has_faces(self) -> bool:
        return self.pair_set is not None

    def faces(self, pair: int) -> list[Face]:
        pairs = self.pair_set
        assert pairs is not None
        return [Face(pairs.decode(i), pairs.image_name(i)) for i in (2 * pair, 2 * pair + 1)]

    def caption(self, pair: int) -> str:
        score = self.report.scores[pair : pair + 1]
        text = f"pair {pair}, score {score[0]:.3f}"
        if not self.calibrations:
            return text
        latest = next(reversed(self.calibrations.values())).calibration
        return f"{text}, p = {latest.probability(score)[0]:.2f}"

    def as_dict(self) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "model": self.model,
            "set": self.set_name,
            **self.report.as_dict(),
        }
        if self.calibrations:
            figures["calibration"] = {
                "pairs": self.calibration_pairs,
                **{name: report.as_dict() for name, report in self.calibrations.items()},
            }
            if self.doubts:
                figures["calibration"]["warnings"] = self.doubts
        return figures

    def text(self) -> str:
        lines = [f"{self.model} on {self.set_name}", str(self.report)]
        if self.calibrations:
            lines.append(f"\ncalibration, {self.calibration_pairs}")
        for name, report in self.calibrations.items():
            lines += [f"- {name}", str(report)]
        lines += [f"warning: {doubt}" for doubt in self.doubts]
        return "\n".join(lines)


@dataclass(frozen=True)
class CommonResult:
    """One threshold for all sets: one model's accuracy by it, and by each set's own."""

    model: str
    threshold: float
    accuracy: dict[str, float]
    """By the set's name."""
    own_accuracy: dict[str, float]

    @classmethod
    def of(cls, model: str, results: Sequence[PairResult]) -> "CommonResult":
        mine = [result for result in results if result.model == model]
        common = best_common_threshold([result.report for result in mine])
        names = [result.set_name for result in mine]
        return cls(
            model,
            common.threshold,
            dict(zip(names, common.accuracy.tolist(), strict=True)),
            dict(zip(names, common.own_accuracy.tolist(), strict=True)),
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "accuracy": self.accuracy,
            "own_accuracy": self.own_accuracy,
        }

    def text(self) -> str:
        lines = [f"{self.model}, one threshold for all sets: {self.threshold:.4f}"]
        for name, accuracy in self.accuracy.items():
            own = self.own_accuracy[name]
            lines.append(f"{name}  accuracy {accuracy:.5f} ({own:.5f} by its own best threshold)")
        return "\n".join(lines)


@dataclass
class TemplateResult:
    """One model's answers, and the set on disk where it was given."""

    model: str
    report: TemplateReport
    images: IjbImages | None
    pairs: IjbPairs | None

    @property
    def has_faces(self) -> bool:
        return self.images is not None and self.images.on_disk

    def faces(self, pair: int) -> list[Face]:
        images = self.images
        assert images is not None
        return [Face(images.face(each), f"template {each}") for each in self._templates(pair)]

    def caption(self, pair: int) -> str:
        return f"pair {pair}, score {self.report.scores[pair]:.3f}"

    def as_dict(self) -> dict[str, Any]:
        return {"model": self.model, **self.report.as_dict()}

    def text(self) -> str:
        return f"{self.model}\n{self.report}"

    def _templates(self, pair: int) -> tuple[int, int]:
        assert self.pairs is not None
        return int(self.pairs.p1[pair]), int(self.pairs.p2[pair])


@dataclass
class People:
    """Who is enrolled or searched for; how to show a row's face, where images are at hand."""

    embeddings: NDArray
    ids: NDArray
    face: Callable[[int], Pixels] | None = None
    names: Sequence[str] | None = None
    """Of the images; where there are none, `ids` stand for them."""

    def show(self, row: int, role: str, note: str = "") -> Face:
        assert self.face is not None
        name = self.ids[row] if self.names is None else self.names[row]
        return Face(self.face(row), f"{name} {note}".rstrip(), role)


@dataclass
class SearchResult:
    """One model's searches in one gallery."""

    model: str
    gallery_name: str
    gallery: People
    probes: People
    report: IdentificationReport

    @property
    def has_faces(self) -> bool:
        return self.gallery.face is not None and self.probes.face is not None

    def faces(self, search: int) -> list[Face]:
        """Of a mated search: the probe, the best other person, the right one."""
        report = self.report
        return [
            self.probes.show(int(report.mated[search]), "searched"),
            self.gallery.show(
                int(report.rivals[search]), "found", f"{report.rival_scores[search]:.3f}"
            ),
            self.gallery.show(
                int(report.mates[search]), "right", f"{report.mate_scores[search]:.3f}"
            ),
        ]

    def caption(self, search: int) -> str:
        return f"the right one is at rank {self.report.ranks[search]}"

    def as_dict(self) -> dict[str, Any]:
        return {"model": self.model, "gallery": self.gallery_name, **self.report.as_dict()}

    def text(self) -> str:
        return f"{self.model} on {self.gallery_name}\n{self.report}"
