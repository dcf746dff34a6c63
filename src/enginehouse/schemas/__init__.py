"""The shapes on the wire. No behaviour: fields, their types, and reading and writing JSON."""
