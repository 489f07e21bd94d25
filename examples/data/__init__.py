"""Pose data and virtual cameras shared by the examples."""
