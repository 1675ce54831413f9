"""Pages of results: the template of all HTML pages of the package, and the page of a folder of results."""
