"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    """A shell ignores interrupts for what it runs in the background, and children inherit that; tests send them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
