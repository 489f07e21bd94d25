"""Timings against other libraries; figures and their commands are in RESULTS.md."""
