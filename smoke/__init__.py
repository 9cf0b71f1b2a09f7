"""Checks of an AWS account before and after the first deployment: a preflight and a smoke suite."""
