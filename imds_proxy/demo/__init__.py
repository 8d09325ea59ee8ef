"""Real clients against the emulator and the proxy, in a namespace of their own."""
