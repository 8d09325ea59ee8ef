"""How the real service is spoken to. Knows nothing of callers."""
