"""A simulator of the OpenAI API: real sockets, OpenAI's schemas, errors and faults, reproducible responses."""
