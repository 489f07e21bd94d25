"""Mutation testing: small changes of the library that a test must notice."""
