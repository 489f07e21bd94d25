"""Probabilistic 2D-to-3D lifting: p(3D pose | 2D keypoints, some of them hidden)."""
