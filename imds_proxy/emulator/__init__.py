"""A faithful ECS metadata service for demos, tests and benches. Shares no code with the proxy."""
