"""The rates of the random walk that the library ships, from the training clips.

python -m tools.motion_rates --data cmu_clips.npz --out flowprior/assets/motion_rates.npz
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.motion.clips import load_clips
from flowprior.fitting.sequence.rates import MotionRates

FPS = 30.0


def main() -> None:
    """Learn and write the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="cmu_clips.npz")
    parser.add_argument("--looseness", type=float, default=3.5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    clips = load_clips(arguments.data, "train")
    rates = MotionRates.learn(
        [clip.rotation for clip in clips],
        [clip.root for clip in clips],
        FPS,
        looseness=arguments.looseness,
    )
    assert rates.covariance is not None
    np.savez_compressed(
        arguments.out,
        acceleration=np.maximum(rates.acceleration, 0.05).astype(np.float32),
        velocity=np.maximum(rates.velocity, 0.005).astype(np.float32),
        transl=np.array([rates.transl_acceleration, rates.transl_velocity], np.float32),
        covariance=rates.covariance.numpy(),
    )


if __name__ == "__main__":
    main()
