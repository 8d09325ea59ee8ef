"""The processes of `workers: N`, and what the daemon keeps of each. A daemon alone loads nothing of it."""
