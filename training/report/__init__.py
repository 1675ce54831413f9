"""Reports, figures and tables."""
