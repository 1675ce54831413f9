"""Benchmark of what training reads: video files as they are, and what was prepared of them."""
