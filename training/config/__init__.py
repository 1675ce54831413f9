"""Recipes and their options."""
