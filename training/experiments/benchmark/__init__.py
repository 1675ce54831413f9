"""Benchmark of the model: its time, memory and arithmetic beside those of its textbook form and the published code."""
