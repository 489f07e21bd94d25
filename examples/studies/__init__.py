"""Studies: comparisons of methods and priors, and failure cases. No program imports them."""
