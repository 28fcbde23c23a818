"""An OpenAI API that needs no key: real sockets, OpenAI's shapes, refusals and faults, reproducible answers."""
