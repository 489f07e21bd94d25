"""The command ``flowprior``, one module per verb."""

from flowprior.command.program import main

__all__ = ["main"]
