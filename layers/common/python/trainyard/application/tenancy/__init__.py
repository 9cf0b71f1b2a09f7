"""Tenants come, change, move and go: the steps of the state machines."""
