"""The training engine: one drive for Keras models and hand-written loops, with exact resume."""
