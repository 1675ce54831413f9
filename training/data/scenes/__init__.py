"""The built-in data set of sounding scenes."""
