"""Commands that use trained models; they run with the base install."""
