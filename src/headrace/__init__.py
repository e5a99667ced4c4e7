"""Declarative training pipelines for TensorFlow: from download to monitoring, with Prefect or without a server.

A workload is one file in `pipelines/` that says *what*; this package says *how*: each stage is a plain function that
takes the folders which earlier stages finished and returns a small `Artifact`. Importing it loads neither TensorFlow
nor Prefect.
"""

from headrace.artifacts import Artifact
from headrace.errors import HeadraceError
from headrace.spec import (
    Column,
    CrossValidation,
    EarlyStopping,
    Export,
    Feature,
    File,
    Monitor,
    Pipeline,
    Promise,
    Records,
    Source,
    Train,
    Variant,
)

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "Column",
    "CrossValidation",
    "EarlyStopping",
    "Export",
    "Feature",
    "File",
    "HeadraceError",
    "Monitor",
    "Pipeline",
    "Promise",
    "Records",
    "Source",
    "Train",
    "Variant",
    "__version__",
]
