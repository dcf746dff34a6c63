"""gRPC: TensorFlow Serving's API and the Open Inference Protocol, for the versions that `:predict` answers for.

Needs the extra `grpc`; imported by `main` only where a port for it is set.
"""
