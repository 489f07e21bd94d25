"""Draw every joint set and write the tables of the pages about them.

Run as ``python docs/drawings/joint_sets.py``; writes ``docs/data/joint-sets.md`` and
``docs/data/whole-body-joint-sets.md``.

The positions are schematic: hands, feet and face are enlarged so that the numbers fit. The figure
faces the reader, so its left is on the right. Sets with hands or faces have these beside and above
the body.
"""

import re
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from flowprior.skeleton import PROHMR_19, PROHMR_44, SKELETONS, Skeleton
from flowprior.skeleton.all_sets import WHOLE_BODY

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "data" / "joint-sets.md"
WHOLE_BODY_PAGE = DOCS / "data" / "whole-body-joint-sets.md"
PAGES = {
    PAGE: [skeleton for name, skeleton in SKELETONS.items() if name not in WHOLE_BODY],
    WHOLE_BODY_PAGE: list(WHOLE_BODY.values()),
}
PICTURES = DOCS / "_static" / "joints"

COLOURS = {"left": "#2a93a6", "right": "#c2613a", "middle": "#55555f"}

# Middle and left half of the figure; the right half mirrors the left. A joint whose position
# differs between sets is prefixed with the name of the set.
PLACES = {
    "pelvis": (0, 5.0),
    "hip": (0, 5.0),
    "mid_hip": (0, 5.0),
    "left_hip": (0.85, 4.75),
    "left_knee": (1.05, 2.75),
    "left_ankle": (1.15, 0.95),
    "left_foot": (1.55, 0.2),
    "spine1": (0, 5.7),
    "spine2": (0, 6.35),
    "spine3": (0, 7.0),
    "neck": (0, 8.0),
    "upper_neck": (0, 8.0),
    "left_collar": (0.62, 7.5),
    "left_shoulder": (1.5, 7.6),
    "left_elbow": (2.3, 6.1),
    "left_wrist": (2.9, 4.7),
    "left_hand": (3.2, 3.95),
    "head": (0, 8.75),
    "nose": (0, 9.3),
    "left_eye": (0.48, 9.75),
    "left_ear": (1.05, 9.4),
    "left_heel": (0.6, 0.25),
    "left_big_toe": (1.0, -0.6),
    "left_small_toe": (1.75, -0.5),
    "left_thumb": (2.3, 3.5),
    "left_index": (2.65, 2.85),
    "left_middle": (3.25, 2.65),
    "left_ring": (3.85, 2.85),
    "left_pinky": (4.2, 3.5),
    "head_top": (0, 10.0),
    "spine": (0, 6.35),
    "thorax": (0, 7.75),
    "H36M nose": (0, 8.7),
    "H36M head": (0, 9.65),
    "H36M left_foot": (1.15, 0.95),
    "MPII head": (0, 9.65),
    "MPII left_foot": (1.15, 0.95),
    "MPI neck": (0, 7.75),
    "MPI head": (0, 8.75),
    "spine_base": (0, 5.65),
    "H36M-32 thorax": (0, 7.95),
    "H36M-32 left_collar": (0.6, 7.95),
    "left_toe_base": (1.35, 0.2),
    "left_toe_end": (1.55, -0.5),
    "left_thumb_base": (2.3, 4.35),
    "left_thumb_end": (2.2, 3.6),
    "H36M left_hand": (3.2, 3.95),
    "left_hand_end": (3.4, 3.2),
    "neck_lsp": (0, 8.05),
    "thorax_mpii": (0, 7.3),
    "spine_h36m": (0, 6.2),
    "pelvis_mpii": (0, 5.0),
    "jaw_h36m": (0, 8.75),
    "head_h36m": (0, 9.45),
    "head_top_lsp": (0, 10.15),
}


# Hands of whole bodies: the wrist at the bottom, the thumb towards the body, and a face above it.
HAND = {
    "hand_root": (0.0, 0.0),
    **{
        f"{finger}{joint}": (x * (0.75 + 0.25 * joint), y + 0.95 * joint)
        for finger, x, y in (
            ("index", -0.9, 1.2),
            ("middle", 0.1, 1.4),
            ("ring", 1.1, 1.2),
            ("pinky", 2.1, 0.8),
        )
        for joint in (1, 2, 3, 4)
    },
    **{f"thumb{joint}": (-0.9 - 0.55 * joint, 0.1 + 0.75 * joint) for joint in (1, 2, 3, 4)},
}
HAND_AT = (6.6, 3.6)
FINGER_NAMES = {
    "forefinger": "index",
    "middle_finger": "middle",
    "ring_finger": "ring",
    "pinky_finger": "pinky",
}
FACE_AT = (0.0, 15.7)
FACE = {
    **{f"left_eye_brow{n}": (3.4 - 0.6 * n, 2.6 + 0.12 * n * (5 - n)) for n in range(1, 6)},
    **{f"nose{n}": (0, 2.1 - 0.55 * n) for n in range(1, 5)},
    "nose_middle": (0, -0.75),
    "left_nose_1": (0.55, -0.65),
    "left_nose_2": (1.1, -0.45),
    **{
        f"left_eye{n}": xy
        for n, xy in enumerate(
            ((2.9, 1.3), (2.3, 1.75), (1.7, 1.75), (1.1, 1.3), (1.7, 0.85), (2.3, 0.85)), 1
        )
    },
    "mouth_top": (0, -1.45),
    **{
        f"left_mouth_{n}": xy
        for n, xy in enumerate(
            ((1.9, -2.2), (1.3, -1.65), (0.65, -1.45), (0.65, -3.1), (1.3, -2.85)), 1
        )
    },
    "mouth_bottom": (0, -3.2),
    "lip_top": (0, -2.0),
    "left_lip_1": (1.25, -2.25),
    "left_lip_2": (0.6, -2.0),
    "left_lip_3": (0.6, -2.6),
    "lip_bottom": (0, -2.65),
    "contour_middle": (0, -4.3),
    **{f"left_contour_{n}": (4.3 - 0.085 * n * n + 0.2 * n, 2.2 - 0.8 * n) for n in range(1, 9)},
}
# Points beside the body in MHR's 70, and the joints of SMPL-X's head.
BESIDE = {
    "jaw": (0, 10.3),
    "left_eye_smplhf": (1.4, 10.4),
    "left_olecranon": (2.75, 6.3),
    "left_cubital_fossa": (2.0, 5.6),
    "left_acromion": (1.9, 8.05),
}


def whole_body_place(skeleton: Skeleton, name: str) -> tuple[float, float] | None:
    """Place of a joint of a hand or a face; None for joints of the body."""
    plain = name.removeprefix("left_")
    for long, short in FINGER_NAMES.items():
        plain = plain.replace(long, short)
    finger = re.fullmatch(r"(index|middle|ring|pinky|thumb|hand_root)([1-4]?)", plain)
    single = "wrist" in skeleton.joint_names  # a hand alone
    if finger or (single and plain == "wrist"):
        key = "hand_root" if plain in ("hand_root", "wrist") else plain
        # The tip has no number in the sets of smplx.
        x, y = HAND[key] if key in HAND else HAND[f"{key}4"]
        return (x, y + 3.0) if single else (HAND_AT[0] + x, HAND_AT[1] + y)
    if name in FACE:
        x, y = FACE[name]
        return FACE_AT[0] + x, FACE_AT[1] + y
    return BESIDE.get(name)


def place(skeleton: Skeleton, name: str) -> tuple[float, float]:
    if name.startswith("right_"):
        x, y = place(skeleton, "left_" + name.removeprefix("right_"))
        return -x, y
    if skeleton.name in WHOLE_BODY:
        found = whole_body_place(skeleton, name)
        if found is not None:
            return found
    plain = name.removesuffix("_lsp") if name.startswith("left_") else name
    prefix = skeleton.name
    while prefix:  # "H36M-32 thorax" before "H36M thorax" before "thorax"
        if f"{prefix} {plain}" in PLACES:
            return PLACES[f"{prefix} {plain}"]
        prefix = re.sub(r"[^-_ ]*$", "", prefix).rstrip("-_ ")
    return PLACES[plain]


def side(name: str) -> str:
    return name.partition("_")[0] if name.startswith(("left_", "right_")) else "middle"


def panel(ax, skeleton: Skeleton, first: int = 0) -> None:
    """One numbered figure; the numbers start at ``first``."""
    places = [place(skeleton, name) for name in skeleton.joint_names]
    for parent, child in skeleton.bones:
        (xa, ya), (xb, yb) = places[parent], places[child]
        colour = COLOURS[side(skeleton.joint_names[child])]
        ax.plot([xa, xb], [ya, yb], color=colour, linewidth=2, alpha=0.45, zorder=1)
    for joint, (x, y) in enumerate(places):
        colour = COLOURS[side(skeleton.joint_names[joint])]
        ax.scatter([x], [y], s=225, color=colour, edgecolor="white", linewidth=1.2, zorder=2)
        ax.text(
            x, y - 0.02, str(first + joint), color="white", ha="center", va="center_baseline",
            fontsize=9.5 if first + joint < 100 else 7.5, fontweight="bold", zorder=3,
        )  # fmt: skip
    ax.set_aspect("equal")
    (left, right), (low, high) = limits(skeleton)
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
    ax.axis("off")


def limits(skeleton: Skeleton) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of x and of y; those of the body for sets without hands and faces."""
    (left, right), (low, high) = (-4.7, 4.7), (-1.1, 10.7)
    if skeleton.name in WHOLE_BODY:
        x, y = zip(*(place(skeleton, name) for name in skeleton.joint_names), strict=True)
        left, right, low, high = min(x) - 0.6, max(x) + 0.6, min(y) - 0.6, max(y) + 0.6
    return (left, right), (low, high)


def file_name(skeleton: Skeleton) -> str:
    return re.sub(r"[^a-z0-9]+", "-", skeleton.name.lower()) + ".svg"


def draw(skeleton: Skeleton, path: Path) -> None:
    """Draw one set; the two halves of ProHMR's 44 overlap, so they get a panel each."""
    halves = [(skeleton, 0)]
    if skeleton is PROHMR_44:
        halves = [(SKELETONS["BODY-25"], 0), (PROHMR_19, 25)]
    style = {"svg.fonttype": "none", "svg.hashsalt": "flowprior", "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
        size = (4.0 * len(halves), 5.0)
        if skeleton.name in WHOLE_BODY:
            (left, right), (low, high) = limits(skeleton)
            size = (4.0 * (right - left) / 9.4, 5.0 * (high - low) / 11.8)
        figure = Figure(figsize=size)
        for ax, (half, first) in zip(
            figure.subplots(1, len(halves), squeeze=False)[0], halves, strict=True
        ):
            panel(ax, half, first)
        figure.subplots_adjust(0, 0, 1, 1, wspace=0)
        figure.savefig(path, facecolor="white", metadata={"Date": None})


def table(skeleton: Skeleton) -> str:
    """Index, name, parent and mirrored joint of every joint."""
    lines = ["| joint | name | parent | mirrored joint |", "|---:|---|---|---|"]
    for joint, name in enumerate(skeleton.joint_names):
        parent, mirror = skeleton.parents[joint], skeleton.flip[joint]
        parent_name = f"{parent} {skeleton.joint_names[parent]}" if parent >= 0 else "(root)"
        other = f"{mirror} {skeleton.joint_names[mirror]}" if mirror != joint else "itself"
        lines.append(f"| **{joint}** | {name} | {parent_name} | {other} |")
    return "\n".join(lines)


def with_tables(page: str, skeletons: list[Skeleton] = PAGES[PAGE]) -> str:
    """The page with the picture and the table of each set between its markers."""
    for skeleton in skeletons:
        start, end = f"<!-- joints: {skeleton.name} -->", "<!-- end -->"
        head, marker, rest = page.partition(start)
        _, stop, tail = rest.partition(end)
        if not marker or not stop:
            raise ValueError(f"the page has no place for {skeleton.name}: {start} ... {end}")
        picture = f"![{skeleton.name}, numbered](../_static/joints/{file_name(skeleton)})"
        page = f"{head}{start}\n\n{picture}\n\n{table(skeleton)}\n\n{end}{tail}"
    return page


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for skeleton in SKELETONS.values():
        draw(skeleton, PICTURES / file_name(skeleton))
    for page, skeletons in PAGES.items():
        text = with_tables(page.read_text(encoding="utf-8"), skeletons)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
