"""Training of the priors that ship with the library."""
