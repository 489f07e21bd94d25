"""Motions as files of other programs: BVH, the npz files of AMASS, animated GLB."""
