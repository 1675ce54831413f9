"""What a run is asked: recipes and their arguments."""
