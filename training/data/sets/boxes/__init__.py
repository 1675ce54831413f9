"""Data sets of frames with boxes around what sounds."""
