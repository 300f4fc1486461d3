"""Training methods between terminals: each a module, ``lead(group)`` at the facility and a part at each member."""
