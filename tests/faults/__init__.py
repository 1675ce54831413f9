"""Faulty input of every kind: nothing nonsensical is accepted in silence, nothing raw is shown, nothing hangs."""
