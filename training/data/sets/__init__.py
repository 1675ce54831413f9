"""Public data sets and folders of videos as they lie on disk."""
