"""Reading and writing files: formats, checks, model files and folders."""

__all__ = []
