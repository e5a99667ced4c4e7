"""The workloads, one file each: what is trained, on what, and what it promises.

A file here imports the core, and TensorFlow and Keras inside its functions only; it never imports Prefect, a task or a
flow. Its name is the name of the workload, of its flow and of its deployments. Nothing else is edited to add one.
"""
