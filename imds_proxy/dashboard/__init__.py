"""The live page: the ledger and the daemon's state, on a loopback port of the one who asks."""
