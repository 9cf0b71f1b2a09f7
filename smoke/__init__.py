"""What an account's owner runs before and after the first deployment: a preflight, and a smoke suite."""
