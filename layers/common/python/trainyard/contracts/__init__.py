"""What crosses the edges of the service: settings, events, messages and the policy file."""
