"""Model cards of the shipped priors."""

from collections.abc import Mapping, Sequence
from typing import Any

from tools.priors.drawing import Kind

__all__ = ["card"]

PEOPLE_USAGE = """```python
import torch

from flowprior import ConditionalPosePrior
from flowprior.keypoints import example_keypoints

prior = ConditionalPosePrior.from_pretrained("flowprior/people")
keypoints = example_keypoints()  # (17, 3): x, y in pixels, confidence; yours, of any COCO detector
keypoints[[7, 9], 2] = 0  # hide the left elbow and wrist
with torch.no_grad():
    posterior = prior.given(keypoints_2d=keypoints)
    mode = posterior.mode()  # (24, 6)
    samples = posterior.sample(100)  # (100, 24, 6)
smpl = prior.smpl_params(samples)  # rotation matrices for a body model
```"""

BODY_USAGE = """```python
import torch

from flowprior import ConditionalPosePrior

prior = ConditionalPosePrior.from_pretrained("flowprior/body-pose")
with torch.no_grad():
    poses = prior.given().sample(8)  # (8, 23, 6): generation
    known = torch.ones(23, dtype=torch.bool)
    known[[0, 3, 6, 9]] = False  # the left leg
    legs = prior.given(rotations=poses[0], known=known).sample(10)  # (10, 23, 6): completion
```"""

PEOPLE = """Poses of people seen from a camera: p(theta | what is known) over the 24 joint rotations
of SMPL, given 2D keypoints, 3D joints, both or nothing.

**Evidence**, all of it optional, in part or as a whole:

* 2D keypoints in COCO's or BODY-25's order, x and y in pixels (y down) and confidence. A keypoint
  with a confidence of 0.1 or less is missing.
* 3D joints in SMPL's order, metres, in the camera's axes with any origin; NaN where unknown.

**Theta**, (24, 6): 6D vectors in layout "columns" and SMPL's order, in the camera frame: x right,
y down, z forward. The root rotation of an upright person is therefore close to half a turn about
x."""

BODY = """Poses of people without their place and heading: p(theta | what is known) over the 23
joint rotations of SMPL below the root, given some of the rotations, 3D joints in the root's frame,
both or nothing.

**Evidence**, all of it optional, in part or as a whole:

* rotations of any of the joints, which the answer keeps exactly; the density is then that of the
  others;
* 3D joints in SMPL's order, metres, the pelvis at the origin and the axes of the pelvis's rotation;
  NaN where unknown.

**Theta**, (23, 6): 6D vectors in layout "columns" and the order of SMPL without its root."""

COMMON = """The data has no hands: they are at rest (the identity), outside the density and not
scored.

**Not for**: identification or surveillance of people; medical, legal or safety decisions; animals;
poses that the data lacks, such as lying down, acrobatics, and children's proportions. Thirteen
adults do not represent all people: densities compare poses with these recordings, not with what is
normal for a person.

**Figures** on {subjects} (never used for training or the choice of settings), {count} poses spread
evenly over their recordings:

{table}

Trained for {steps} steps of {batch} examples, and the flow alone for {flow_steps} more, seed
{seed}, in {minutes:.0f} minutes on {where}: `{command}`.{remark}
Rotations have noise of 1 degree about each axis, in training and in the NLL."""

EXPLAINED = {
    "people": """Errors are over SMPL's first 22 joints relative to the pelvis, in mm. The person in
the picture has a random shape; the answer is posed with the average shape, or where it says "own
shape" with the person's. All 17 keypoints are seen, with noise of about 0.8 % of the person's box,
unless the forearm is hidden. Regions are around the mode.""",
    "body-pose": """Errors of completions are over the joints that the unknown rotations move, those
of inverse kinematics over SMPL's first 22; in mm relative to the pelvis, on the average body.""",
}


def card(
    kind: Kind,
    figures: Mapping[str, float],
    subjects: Mapping[str, Sequence[str]],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """Arguments of the model card.

    Args:
        kind: The prior.
        figures: Figures on the test subjects, by name.
        subjects: Names of the subjects of each part.
        training: ``steps``, ``flow_steps``, ``batch``, ``seed``, ``minutes``, ``where``,
            ``command``, ``count``, ``temperature``; ``remark``, sentences about the training, or an
            empty text.
    """
    rows = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    table = "\n".join(["| figure | value |", "|---|---|", *rows])
    named = {part: ", ".join(names) for part, names in subjects.items()}
    common = COMMON.format(subjects=named["test"], table=table, **training)
    description = "\n\n".join([PEOPLE if kind == "people" else BODY, common, EXPLAINED[kind]])
    data = (
        "Poses of the CMU Graphics Lab Motion Capture Database, free for all uses. The data used "
        "in this project was obtained from mocap.cs.cmu.edu; the database was created with "
        f"funding from NSF EIA-0196217. Training subjects: {named['train']}, half of the poses "
        "mirrored, on the embedded body of random shape, with the segment turns of "
        f"`examples/data/augment.py`. Choice of settings and the base of the flow (temperature "
        f"{training['temperature']:.2f}): {named['val']}. Figures: {named['test']}."
    )
    return {
        "license": "mit",
        "description": description,
        "data": data,
        "metrics": {name: float(f"{value:.4g}") for name, value in figures.items()},
        "usage": PEOPLE_USAGE if kind == "people" else BODY_USAGE,
    }
