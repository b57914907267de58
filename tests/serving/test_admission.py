import pytest

from hf_maskadapter.serving.admission import Admission
from hf_maskadapter.serving.errors import RequestError


def test_places_are_bounded_and_given_back():
    admission = Admission(2, 100, lambda: 3.0)
    with admission.place(), admission.place():
        with pytest.raises(RequestError) as refused, admission.place():
            pass
        assert (refused.value.status, refused.value.retry_after) == (503, 6)  # two requests of three seconds each
        assert refused.value.headers == {"Retry-After": "6"}
    with admission.place():
        pass
    assert (admission.in_use, admission.accepted, admission.answered) == (0, 3, 3)


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 1), (0.2, 1), (1e6, 60)])
def test_clients_are_told_to_come_back_after_one_second_at_least_and_one_minute_at_most(seconds, told):
    admission = Admission(1, 100, lambda: seconds)
    with admission.place():
        assert admission.retry_after == told


def test_memory_is_bounded_over_all_requests_and_given_back_with_the_places():
    admission = Admission(5, 100, lambda: 1.0)
    with admission.place() as first:
        first.reserve(60)
        with admission.place() as second:
            second.reserve(40)
            with pytest.raises(RequestError, match="Too many large pictures") as refused:
                second.reserve(1)
            assert refused.value.status == 503
            assert admission.reserved == 100
        assert admission.reserved == 60
        with pytest.raises(RequestError, match="takes 101 bytes") as refused:
            first.reserve(41)
        assert refused.value.status == 413  # it would not fit either if it were alone
    assert admission.reserved == 0


def test_a_thread_that_goes_on_after_its_request_was_given_up_holds_no_memory():
    admission = Admission(5, 100, lambda: 1.0)
    with admission.place() as place:
        pass
    with pytest.raises(RequestError):
        place.reserve(10)
    assert admission.reserved == 0
