"""Watching without touching: packets to the metadata address, read beside, named, written to the ledger."""
