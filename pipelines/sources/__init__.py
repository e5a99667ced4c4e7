"""Data sets that several workloads use: one module each, with its `Source` objects, their readers and their twins."""
