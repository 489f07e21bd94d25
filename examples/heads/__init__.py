"""Heads on frozen regressors: collect features once, then train calibrated posteriors on them."""
