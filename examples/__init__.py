"""Complete programs built on flowprior, each in a folder of its own."""
