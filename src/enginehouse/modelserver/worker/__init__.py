"""A model whose runtime has a Python too old for the model server.

`inside` is the one file that runs there, good for Python 2.7 and 3.6 to current: it loads the model and makes calls.
All the rest (HTTP, batches, JSON, the checks of instances) runs on the engine's Python, which talks to it by `link`.
A framework that never lets go of the interpreter's lock holds up nobody but those who wait for its answers.
"""
