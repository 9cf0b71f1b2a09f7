"""SageMaker on this machine: moto provides the model registry, and pipelines are really executed."""
