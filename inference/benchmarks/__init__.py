"""Saved models in the forms that public benchmarks take."""
