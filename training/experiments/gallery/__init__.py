"""A page of results that can be seen and heard, with cases that a rule chooses."""
