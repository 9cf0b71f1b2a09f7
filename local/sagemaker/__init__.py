"""SageMaker on this machine: moto keeps the registry, and pipelines really run."""
