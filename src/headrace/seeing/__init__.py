"""What a convolutional network sees: what its layers answer, what its filters look for, what its decisions rest on.

Nothing here knows of registries or pages: `headrace.interpreting` asks, and shows.
"""
