"""The demo: six tenants on three tiers drop real data, and get real models."""
