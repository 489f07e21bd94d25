"""Model files and folders, safe readers, limits on files, atomic writes."""

__all__ = []
