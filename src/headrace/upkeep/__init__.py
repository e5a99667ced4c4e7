"""What follows from the workloads' files, and is kept in step: flows and deployments, tables of results, new files."""
