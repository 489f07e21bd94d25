"""Motion: sequences of real clips with simulated errors, against filters and single frames."""
