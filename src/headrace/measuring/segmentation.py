"""The class of each pixel: how many are right, and how well the areas of the classes cover each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from headrace.measuring.resampling import Array
from headrace.measuring.showing import of, worst
from headrace.measuring.sums import ratio
from headrace.measuring.tasks import Facts, Naive, Task


class Segmentation(Task):
    """Pixel accuracy, and for each class what its true and its answered area have in common, of both together (IoU).

    Areas are those of all images together, so that a class that is absent from most images is measured as well; the
    mean is over the classes that occur. Pixels whose true number is that of no class (255, say) don't count.
    """

    primary: ClassVar[str] = "mean_iou"
    larger_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy", "mean_iou"})

    @property
    def _size(self) -> tuple[int, ...]:
        """Height and width of a mask."""
        return tuple(length or 0 for length in self.target.shape[:2])

    @property
    def rising(self) -> frozenset[str]:
        """All of them."""
        return self.larger_is_better | {f"iou_{name}" for name in self._names(len(self.target.classes))}

    @property
    def expected(self) -> str:
        """A number for each class, at each pixel."""
        size = len(self.target.classes) or "classes"
        return f"({', '.join(map(str, ('examples', *self._size, size)))}): the probability of each class"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it has the size of the mask, with a number for each class."""
        known = len(self.target.classes) or (shape[-1] if shape else 0)
        return len(shape) == 3 and shape[:2] == self._size and shape[2] == known > 1

    def facts(self, truth: Array, answers: Array) -> Facts:
        """Pixels of each image and class (examples, classes): that are right, that are of it, that are said to be."""
        classes = answers.shape[-1]
        found = np.zeros((3, len(truth), classes))
        said = None
        # Image by image: what is computed of a pixel takes more room than the pixel.
        for row, true in enumerate(truth):
            if said is None or answers.strides[0]:
                said = answers[row].argmax(axis=-1).ravel()
            flat = true.ravel().astype(np.int64)
            counted = (flat >= 0) & (flat < classes)
            pairs = np.bincount((flat * classes + said)[counted], minlength=classes**2).reshape(classes, classes)
            found[:, row] = pairs.diagonal(), pairs.sum(axis=1), pairs.sum(axis=0)
        return dict(zip(("hits", "cases", "claims"), found, strict=True))

    def measure(self, facts: Facts, weights: Array) -> Mapping[str, Array]:
        """See the class."""
        hits, cases, claims = (weights @ facts[name] for name in ("hits", "cases", "claims"))
        each = ratio(hits, cases + claims - hits)
        known = np.isfinite(each)
        return {
            "accuracy": ratio(hits.sum(axis=-1), cases.sum(axis=-1)),
            "mean_iou": ratio(np.where(known, each, 0).sum(axis=-1), known.sum(axis=-1)),
            **{f"iou_{name}": each[..., place] for place, name in enumerate(self._names(each.shape[-1]))},
        }

    def about(self, facts: Facts) -> Mapping[str, Any]:
        """The images whose masks are worst, and which class is."""
        hits, cases, claims = (facts[name] for name in ("hits", "cases", "claims"))
        each = ratio(hits, cases + claims - hits)
        known = np.isfinite(each)
        iou = ratio(np.where(known, each, 0).sum(axis=-1), known.sum(axis=-1))
        nobody = [None] * len(iou)
        found: dict[str, Any] = {"worst": worst(np.nan_to_num(1 - iou), nobody, nobody, None)}
        names = [str(name) for name in self.target.classes or range(hits.shape[-1])]
        if cases.sum():
            whole = ratio(hits.sum(axis=0), (cases + claims - hits).sum(axis=0))
            hardest = int(np.nanargmin(whole))
            found["said"] = [
                f"Of 1,000 pixels {of(float(1 - hits.sum() / cases.sum()), 1_000)} are given to another class than "
                "their own.",
                f"It finds “{names[hardest]}” worst: of the pixels that are of it, or are said to be, "
                f"{of(float(whole[hardest]), 100)} of 100 are both.",
            ]
        return found

    def _names(self, classes: int) -> list[str]:
        """What the classes are called in the names of metrics: `iou_cat`, `iou_0`."""
        known = self.target.classes or range(classes)
        return [re.sub(r"[^a-z0-9]+", "_", str(name).lower()) for name in known]

    def learned(self, targets: Iterable[Array]) -> Array:
        """How often each class is at each pixel in the training split (height, width, classes)."""
        counts = np.zeros((*self._size, max(len(self.target.classes), 2)), np.int64)
        for part in targets:
            masks = part.reshape(len(part), *self._size)
            seen = len(self.target.classes) or int(masks.max(initial=0)) + 1
            counts = np.pad(counts, ((0, 0), (0, 0), (0, max(seen - counts.shape[-1], 0))))
            for number in range(seen):
                counts[..., number] += (masks == number).sum(axis=0)
        return counts

    def naive(self, learned: Array) -> Mapping[str, Naive]:
        """Always the class that is most frequent at each pixel, and always the one that is most frequent of all."""
        classes = np.eye(learned.shape[-1], dtype=np.float32)
        mask, common = classes[learned.argmax(axis=-1)], classes[learned.sum(axis=(0, 1)).argmax()]
        everywhere = np.broadcast_to(common, mask.shape)
        return {
            "majority mask": lambda inputs, count: np.broadcast_to(mask, (count, *mask.shape)),
            "majority class": lambda inputs, count: np.broadcast_to(everywhere, (count, *mask.shape)),
        }
