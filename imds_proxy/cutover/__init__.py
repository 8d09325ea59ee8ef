"""From `HttpTokens=optional` to `required`, one instance after the other, and back where it fails."""
