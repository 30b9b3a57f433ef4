from multidict import CIMultiDict

from inference_cache_sidecar.headers import credential_of, end_to_end, kept_with_entry


def test_hop_by_hop_headers_and_those_named_by_connection_stay_behind():
    given = CIMultiDict(
        [("Connection", "close, X-Mine"), ("x-mine", "1"), ("TE", "trailers"), ("Transfer-Encoding", "chunked"), ("Accept", "a")]
    )
    assert list(end_to_end(given).items()) == [("Accept", "a")]


def test_repeated_headers_survive_in_order():
    given = CIMultiDict([("Via", "a"), ("X", "1"), ("Via", "b")])
    assert list(end_to_end(given, ("x",)).items()) == [("Via", "a"), ("Via", "b")]


def test_an_entry_keeps_no_cookie_no_date_and_no_request_id():
    given = {"Set-Cookie": "s", "Date": "d", "X-Request-Id": "i", "Content-Type": "application/json", "Access-Control-Allow-Origin": "*"}
    assert kept_with_entry(given) == (("content-type", "application/json"), ("access-control-allow-origin", "*"))


def test_both_credential_headers_make_the_credential():
    assert credential_of({}) == ""
    assert credential_of({"Authorization": "Bearer a"}) != credential_of({"x-api-key": "Bearer a"})
