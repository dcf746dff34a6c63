"""Batch prediction: the program of a batch prediction job, run by the interpreter of the model's runtime.

`patterns` and `split` decide what there is to do, `read` turns a split into batches of instances, `run` asks the
model by the adapters of `modelserver`, `write` commits what came out. `coordinator` hands splits to `worker`
processes, tells how it goes and ends the job.

Imports the standard library and `modelserver`; reaches objects by HTTP alone.
"""
