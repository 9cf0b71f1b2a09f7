"""The demo: six tenants in three tiers upload real data and get real models."""
