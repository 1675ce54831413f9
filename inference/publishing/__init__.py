"""Publishing a model on the Hub: what is uploaded of its folder, checks before that, and the upload."""
