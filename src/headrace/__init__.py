"""Declarative training pipelines for TensorFlow: from download to monitoring, with Prefect or without a server.

A workload is one file in `pipelines/` that says *what*; this package says *how*: each stage is a plain function that
takes the folders which earlier stages finished and returns a small `Artifact`. Importing it loads neither TensorFlow
nor Prefect.
"""

from headrace.artifacts import Artifact
from headrace.errors import HeadraceError
from headrace.spec import (
    Choice,
    Column,
    CrossValidation,
    Deploy,
    EarlyStopping,
    Ensemble,
    Evaluate,
    Export,
    Feature,
    File,
    Finding,
    Float,
    Functions,
    Int,
    ModelCheckpoint,
    Monitor,
    Pipeline,
    Promise,
    Publish,
    Records,
    ReduceLROnPlateau,
    Source,
    Study,
    Train,
    Tuning,
    Variant,
    Waiver,
    Windows,
)

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "Choice",
    "Column",
    "CrossValidation",
    "Deploy",
    "EarlyStopping",
    "Ensemble",
    "Evaluate",
    "Export",
    "Feature",
    "File",
    "Finding",
    "Float",
    "Functions",
    "HeadraceError",
    "Int",
    "ModelCheckpoint",
    "Monitor",
    "Pipeline",
    "Promise",
    "Publish",
    "Records",
    "ReduceLROnPlateau",
    "Source",
    "Study",
    "Train",
    "Tuning",
    "Variant",
    "Waiver",
    "Windows",
    "__version__",
]
