"""What all tests of the laboratory share."""

import pytest

from support.toy import reset_accelerate


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Forget what tests before left in the process: the laboratory trains with a precision of its own."""
    reset_accelerate()
    yield
    reset_accelerate()
