"""Pages of results: the template of all HTML pages, the page of a folder of results, and images of reconstructions."""
