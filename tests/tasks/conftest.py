"""The temporary Prefect server."""

from tests.harness import harness, prefect_server

__all__ = ["harness", "prefect_server"]
