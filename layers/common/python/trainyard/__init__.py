"""Trainyard: an event-driven, multi-tenant training scheduler for Amazon SageMaker."""
