"""The command line: `process` carries one out, `groups` names the commands, each module beside them holds some of them.

`--help`, `list`, `show`, `plan` and a run that skips every stage load neither TensorFlow nor Prefect; both are imported
by the stage or the flow that needs them.
"""
