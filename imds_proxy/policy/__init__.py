"""Who may read what, how fast. Pure: no IO, no clock, no log."""
