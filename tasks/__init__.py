"""The stages of the core as Prefect tasks: `headrace` holds what a stage *does*, this folder how a run of it *shows*.

Rules of this folder:

- A module has the name of the core's module whose stage it wraps, and holds one task made by `policies.as_task`: its
  patience, its retries, and the Prefect artifact that tells a person what came out. `stages.STAGES` lists them all.
- A task never decides anything that changes a result; what to skip is the core's decision and is only shown.
- Small things go in and out (a `Job`, `Artifact`s), because Prefect walks through every argument and result.
- A task imports the core and Prefect; never a workload, never a flow.

Importing this package loads nothing: `server` must be able to prepare the environment before Prefect reads it.
"""
