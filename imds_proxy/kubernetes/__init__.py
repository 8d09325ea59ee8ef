"""What the API server says of this machine's pods, kept up to date by a watch. Knows nothing of processes."""
