"""A contest of body-pose priors: one data set, one body, the same seconds of training."""
