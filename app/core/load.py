"""How much the server is doing."""


class ServerLoad:
    """Requests for answers that are being worked on; a stream counts until its end."""

    def __init__(self) -> None:
        self.requests = 0
