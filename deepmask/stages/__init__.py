"""The long computations of a study, one module each: what the notebooks start and `python -m deepmask job` runs.

Every module has `run`, which starts the job on all cores or GPUs, and `job`, the work of one of these processes.
"""
