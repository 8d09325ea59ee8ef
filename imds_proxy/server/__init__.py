"""The running daemon: it ties the other rooms together."""
