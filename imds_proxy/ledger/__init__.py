"""What is remembered of callers. Knows nothing of sockets."""
