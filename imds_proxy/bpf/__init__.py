"""Programs for the kernel, assembled here: no compiler, nothing on the target. Knows no other room."""
