"""What the metadata protocol says. Pure: no IO, no clock, no log."""
