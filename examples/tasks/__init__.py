"""The standard tasks of a pose prior, with the priors that ship with the library."""
