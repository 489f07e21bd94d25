"""Comparison of posteriors at equal cost, on motion capture of held-out subjects."""
