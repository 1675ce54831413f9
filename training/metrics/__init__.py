"""Metrics of the five tasks as functions of arrays; the folders beside hold them as modules of `evaluate`."""
