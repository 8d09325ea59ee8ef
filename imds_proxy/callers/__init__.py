"""Who is calling, on Linux, from the kernel's own records. Knows nothing of requests."""
