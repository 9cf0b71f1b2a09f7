"""The items of the tables: what they look like, who writes each, and how a transaction changes several."""
