"""Fitting a body to keypoints with a pose prior: one view, several views, whole data sets."""
