"""Keeping things on an object store: a home that machines share, the registry's files, objects."""
