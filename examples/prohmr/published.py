"""Published results of ProHMR, for comparison.

Each names its source: "paper" is the supplement's text, "secondary" a later paper or the original's
repository that quotes it, "memory" an unverified value.
"""

from typing import NamedTuple

__all__ = ["FIGURES", "Figure", "published"]


class Figure(NamedTuple):
    """One published value.

    Args:
        dataset: Name in `examples.data.datasets.DATASETS`.
        method: Name of the method.
        metric: "mpjpe" or "pa_mpjpe".
        samples: 0 for the mode, n for the best of n.
        value_mm: The value in millimetres.
        source: "paper", "secondary" or "memory".
        answer: "regression", "fitting" to 2D keypoints, "smplify" (SMPLify from the regression), or
            "views", multi-view refinement.
    """

    dataset: str
    method: str
    metric: str
    samples: int
    value_mm: float
    source: str
    answer: str = "regression"


def _row(
    method: str,
    source: str,
    *values: tuple[str, float],
    samples: int = 0,
    metric: str = "pa_mpjpe",
    answer: str = "regression",
) -> list[Figure]:
    return [Figure(name, method, metric, samples, value, source, answer) for name, value in values]


_SETS = ("H36M-VAL-P2", "3DPW-TEST", "MPI-INF-TEST")

FIGURES: tuple[Figure, ...] = (
    # Table 1: regression, PA-MPJPE.
    *_row("HMR", "memory", *zip(_SETS, (56.8, 81.3, 89.8), strict=True)),
    *_row("SPIN", "memory", *zip(_SETS, (41.1, 59.2, 67.5), strict=True)),
    *_row("Biggs et al.", "memory", ("H36M-VAL-P2", 41.6), ("3DPW-TEST", 59.9)),
    *_row("ProHMR", "secondary", *zip(_SETS, (41.2, 59.8, 65.0), strict=True)),
    # Table 2: the best of n samples. For n below 4096, k-means centroids of 4096 samples.
    *_row("ProHMR", "paper", ("H36M-VAL-P2", 29.9), samples=4096),
    *_row("ProHMR", "secondary", ("3DPW-TEST", 40.8), samples=4096),
    *(
        figure
        for samples, whole, aligned in ((5, 93.1, 56.5), (10, 89.8, 54.6), (25, 84.0, 52.4))
        for figure in (
            Figure("3DPW-TEST", "ProHMR", "mpjpe", samples, whole, "secondary"),
            Figure("3DPW-TEST", "ProHMR", "pa_mpjpe", samples, aligned, "secondary"),
        )
    ),
    Figure("3DPW-TEST", "ProHMR", "mpjpe", 0, 97.0, "secondary"),
    # Table 3: fitting to 2D keypoints. EMDB comes from a later paper.
    *_row("ProHMR + SMPLify", "secondary", ("3DPW-TEST", 60.9), answer="smplify"),
    *_row("ProHMR + fitting", "secondary", ("3DPW-TEST", 55.1), answer="fitting"),
    # Table 4: several views, before and after refinement.
    Figure("H36M-VAL-MULTIVIEW", "ProHMR", "mpjpe", 0, 65.1, "secondary"),
    Figure("H36M-VAL-MULTIVIEW", "ProHMR", "pa_mpjpe", 0, 43.7, "secondary"),
    Figure("MANNEQUIN", "ProHMR", "mpjpe", 0, 165.3, "secondary"),
    Figure("MANNEQUIN", "ProHMR", "pa_mpjpe", 0, 86.8, "secondary"),
    *_row(
        "ProHMR",
        "secondary",
        ("H36M-VAL-MULTIVIEW", 59.6),
        ("MANNEQUIN", 162.6),
        metric="mpjpe",
        answer="views",
    ),
    *_row("ProHMR", "secondary", ("H36M-VAL-MULTIVIEW", 34.5), ("MANNEQUIN", 80.2), answer="views"),
    # Supplement, table 1: ambiguous Human3.6M.
    *_row("Biggs et al.", "paper", ("AH36M", 67.8), samples=1),
    *_row("Biggs et al.", "paper", ("AH36M", 64.2), samples=25),
    *_row("ProHMR", "paper", ("AH36M", 67.3), samples=1),
    *_row("ProHMR", "paper", ("AH36M", 60.1), samples=25),
    # Supplement 5.3, in the text.
    *_row("ProHMR + SMPLify", "paper", ("AH36M", 67.8), answer="smplify"),
    *_row("ProHMR + fitting", "paper", ("AH36M", 61.4), answer="fitting"),
)


def published(
    dataset: str, metric: str, samples: int = 0, answer: str = "regression"
) -> list[Figure]:
    """Published values for the same data set, metric, number of samples and answer.

    One sample means the mode, as in the paper.
    """
    wanted = (dataset, metric, answer)
    return [
        f
        for f in FIGURES
        if (f.dataset, f.metric, f.answer) == wanted
        and (f.samples == samples or {f.samples, samples} == {0, 1})
    ]
