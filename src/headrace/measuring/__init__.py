"""How good answers are: metrics of every kind of task with intervals, and naive answers that a model has to beat."""
