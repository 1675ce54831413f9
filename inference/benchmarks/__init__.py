"""Saved models in the forms that public benchmarks take; imports no benchmark."""
