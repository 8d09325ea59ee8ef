"""How traffic gets here: the listener's own address, and the redirect of the service's address to it."""
