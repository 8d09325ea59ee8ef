"""Which client a caller uses, and what to do about it. Knows nothing of sockets, servers or ledgers."""
