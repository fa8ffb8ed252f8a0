"""The strict parser: one row for each way to be no proposal, and nothing that raises or is repaired."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridgov import reply
from gridgov.journal import transfers_text
from gridgov.model import Code, Constraints, Malformed, Proposal, Resource, Transfer, Unavailable
from gridgov.propose import Answer
from gridgov.reply import (
    DETAIL_MAX,
    DIGITS_MAX,
    SIZE_MAX,
    Fault,
    about,
    answer_of,
    load,
    parse_body,
    parse_client,
    parse_text,
    printable,
)
from gridgov.state import State
from gridgov.validate import validate

RESOURCES = {"energy": Resource("energy", "kWh", 3), "credits": Resource("credits", "credit", 2)}
GOOD = '{"transfers": [{"from": "a", "to": "b", "resource": "energy", "amount": 12.5}], "reasoning": "surplus"}'
ANSWER = Answer((Transfer("a", "b", "energy", 12500),), "surplus")


def amount(token):
    return GOOD.replace("12.5", token)


def envelope(text=GOOD, *, reason="STOP", parts=None, **more):
    parts = [{"text": text}] if parts is None else parts
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": reason, "index": 0}
    return json.dumps({"candidates": [candidate], "modelVersion": "gemini-x", **more}).encode()


def fault(found):
    assert isinstance(found, Malformed)
    return found


def answer(found):
    assert isinstance(found, Answer)
    return found


def failure(found):
    assert isinstance(found, Unavailable)
    return found


# --- proposals in text ------------------------------------------------------------------------------------------------


def test_reads_a_proposal_into_minor_units():
    assert parse_text(GOOD, RESOURCES) == ANSWER
    assert parse_text(f" \n{GOOD}\r\n\t", RESOURCES) == ANSWER
    assert parse_text('{"reasoning":"","transfers":[]}', RESOURCES) == Answer((), "")


TEXTS = [
    # (what, text, code, what the detail says)
    ("code fence", f"```json\n{GOOD}\n```", "not_pure_json", "expected a value, found"),
    ("preamble", f"Here is my proposal: {GOOD}", "not_pure_json", "Here is my"),
    ("preamble that begins as a literal", f"true story: {GOOD}", "not_pure_json", "character 5"),
    ("trailing text", f"{GOOD}\nDone.", "not_pure_json", "expected the end"),
    ("trailing comma", GOOD.replace("}]", "},]"), "not_pure_json", "transfers[1]"),
    ("trailing text in braces", GOOD + " {as asked}", "not_pure_json", "expected the end"),
    ("comment", GOOD.replace("[", "[ // first\n", 1), "not_pure_json", "// first"),
    ("comment before", f"/* x */ {GOOD}", "not_pure_json", ""),
    ("BOM", "\ufeff" + GOOD, "not_pure_json", "\\ufeff"),
    ("no-break space", "\u00a0" + GOOD, "not_pure_json", ""),
    ("single quotes", GOOD.replace('"', "'"), "not_pure_json", "a key"),
    ("bare key", GOOD.replace('"reasoning"', "reasoning"), "not_pure_json", "a key"),
    ("raw newline in a text", GOOD.replace("surplus", "sur\nplus"), "not_pure_json", "reasoning: "),
    ("unknown escape", GOOD.replace("surplus", "\\x41"), "not_pure_json", "an escape"),
    ("bad escape", GOOD.replace("surplus", "\\u00g0"), "not_pure_json", "hexadecimal"),
    ("leading zero", amount("05"), "not_pure_json", "transfers[0]"),
    ("plus sign", amount("+5"), "not_pure_json", ""),
    ("bare point", amount(".5"), "not_pure_json", ""),
    ("point without decimals", amount("5."), "not_pure_json", ""),
    ("hexadecimal", amount("0x10"), "not_pure_json", ""),
    ("digit groups", amount("1_000"), "not_pure_json", ""),
    ("unit without quotes", amount("5 MWh"), "not_pure_json", ""),
    ("Python's literals", GOOD.replace('"surplus"', "None"), "not_pure_json", "None"),
    ("two objects", GOOD + GOOD, "multiple_values", "another value"),
    ("two objects in lines", f"{GOOD}\n{GOOD}", "multiple_values", "another value"),
    ("an object and a list", f"{GOOD} []", "multiple_values", "another value"),
    ("truncated in a number", GOOD[: GOOD.index("2.5")], "truncated", "transfers[0]"),
    ("truncated in a text", GOOD[:-5], "truncated", "reasoning"),
    ("truncated before the end", GOOD[:-1], "truncated", "the end of the object"),
    ("truncated in an escape", '{"reasoning": "\\u00', "truncated", "reasoning"),
    ("truncated in a pair", '{"reasoning": "\\ud83d\\', "truncated", "reasoning"),
    ("truncated in a literal", '{"reasoning": nul', "truncated", "reasoning"),
    ("NaN", amount("NaN"), "non_finite", "transfers[0].amount: NaN"),
    ("Infinity", amount("Infinity"), "non_finite", "Infinity"),
    ("-Infinity", amount("-Infinity"), "non_finite", "-Infinity"),
    ("1e999", amount("1e999"), "non_finite", "1e999"),
    ("an absurd exponent", amount("1e99999999999999999999"), "non_finite", ""),
    ("a number in quotes", amount('"5.0"'), "wrong_type", '[0].amount: expected a number, found the text "5.0"'),
    ("true", amount("true"), "wrong_type", "found true"),
    ("null", amount("null"), "wrong_type", "found null"),
    ("an amount that is a list", amount("[5]"), "wrong_type", "found an array"),
    ("digit groups in quotes", amount('"1_000"'), "wrong_type", "1_000"),
    ("a unit in quotes", amount('"5 MWh"'), "wrong_type", "5 MWh"),
    ("a comma in quotes", amount('"1,5"'), "wrong_type", "1,5"),
    ("full-width digits", amount("\uff15"), "wrong_type", "transfers[0].amount"),
    ("full-width digits in quotes", amount('"\uff15"'), "wrong_type", "transfers[0].amount"),
    ("a number as an actor", GOOD.replace('"a"', "1"), "wrong_type", "transfers[0].from: expected text, found 1"),
    ("null as a receiver", GOOD.replace('"b"', "null"), "wrong_type", "transfers[0].to"),
    ("a list as a resource", GOOD.replace('"energy"', "[]"), "wrong_type", "transfers[0].resource"),
    ("null as reasoning", GOOD.replace('"surplus"', "null"), "wrong_type", "reasoning"),
    ("a list at the top", f"[{GOOD}]", "wrong_type", "expected an object, found an array"),
    ("a proposal in quotes", json.dumps(GOOD), "wrong_type", "expected an object"),
    ("null at the top", "null", "wrong_type", "found null"),
    ("transfers as an object", '{"transfers": {}, "reasoning": ""}', "wrong_type", "transfers: expected an array"),
    ("a transfer that is text", '{"transfers": ["a"], "reasoning": ""}', "wrong_type", "transfers[0]"),
    ("duplicate key", amount('5, "amount": 5000'), "duplicate_key", "transfers[0].amount"),
    ("duplicate key, escaped", amount('5, "\\u0061mount": 5000'), "duplicate_key", "transfers[0].amount"),
    ("extra key", GOOD.replace('"reasoning"', '"note": 1, "reasoning"'), "unknown_field", "note: "),
    ("extra key in a transfer", amount('5, "unit": "kWh"'), "unknown_field", "transfers[0].unit"),
    ("a model's own id", GOOD.replace("{", '{"proposal_id": "x", ', 1), "unknown_field", "proposal_id"),
    ("homoglyph key", GOOD.replace('"amount"', '"\u0430mount"'), "unknown_field", "transfers[0].\u0430mount"),
    ("missing key", '{"transfers": []}', "missing_field", "reasoning"),
    ("missing key in a transfer", GOOD.replace('"to": "b", ', ""), "missing_field", "transfers[0].to"),
    ("an empty object", "{}", "missing_field", "transfers"),
    ("U+0000", GOOD.replace("surplus", "a\0"), "bad_unicode", "U+0000"),
    ("U+0000 outside texts", f"{GOOD}\0", "bad_unicode", "U+0000"),
    ("U+0000, escaped", GOOD.replace("surplus", "a\\u0000"), "bad_unicode", "reasoning: U+0000"),
    ("U+0000 in a key", GOOD.replace("reasoning", "\\u0000"), "bad_unicode", "U+0000"),
    ("lone surrogate", GOOD.replace("surplus", "\ud83d"), "bad_unicode", "surrogate"),
    ("lone surrogate, escaped", GOOD.replace("surplus", "\\ud83d!"), "bad_unicode", "reasoning: the lone surrogate"),
    ("low surrogate, escaped", GOOD.replace("surplus", "\\udc00"), "bad_unicode", "\\udc00"),
    ("surrogates the wrong way round", GOOD.replace("surplus", "\\ud83d\\ud83d"), "bad_unicode", "\\ud83d"),
    ("5,000 levels", "[" * 5000, "too_deep", "64 levels"),
    ("5,000 levels inside", amount('{"a":' * 5000 + "1" + "}" * 5000), "too_deep", ""),
    ("5,000 digits", amount("1" * 5000), "too_large", "5000 digits"),
    ("5,000 digits after the point", amount("0." + "1" * 5000), "too_large", "5001 digits"),
    ("5,000 digits of exponent", amount("1e" + "9" * 5000), "too_large", "5001 digits"),
    ("10 MB", GOOD.replace("surplus", "x" * 10_000_000), "too_large", "bytes"),
    ("empty", "", "no_answer", "empty"),
    ("blank", " \n\t", "no_answer", "empty"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "said"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_names_why_a_text_is_no_proposal(text, code, said):
    found = parse_text(text, RESOURCES)
    assert isinstance(found, Malformed)
    assert (found.code, found.raw) == (code, text.encode("utf-8", "surrogatepass"))
    assert said in found.detail
    assert found.detail.isprintable()
    assert len(found.detail) <= DETAIL_MAX


def test_has_a_row_for_each_fault_of_a_text():
    assert {row[2] for row in TEXTS} == {fault.value for fault in Fault} - {"not_finished"}


PRECEDENCE = [
    ("size before unicode", "\0" * (SIZE_MAX + 1), "too_large"),
    ("unicode before depth", "[" * 100 + "\0", "bad_unicode"),
    ("depth before digits, as they come", "[" * 100 + "1" * 100, "too_deep"),
    ("digits before depth, as they come", "[" + "1" * 100 + "[" * 100, "too_large"),
    ("depth before what is wrong earlier", "Sure! " + "[" * 100, "too_deep"),
    ("the first fault from the left", '{"a": 1, "a": NaN', "duplicate_key"),
    ("the first fault from the left, again", '{"a": NaN, "a": 1', "non_finite"),
    ("JSON before fields", '{"note": 1, "reasoning": "\\ud800"}', "bad_unicode"),
    ("end of the text before fields", '{"note": 1', "truncated"),
    ("unknown before missing", '{"note": 1}', "unknown_field"),
    ("missing before types", '{"transfers": 1}', "missing_field"),
    ("the outer object before the inner", '{"transfers": [{"x": 1}], "note": 1}', "unknown_field"),
    ("transfers before reasoning", '{"reasoning": 1, "transfers": [{}]}', "missing_field"),
]


@pytest.mark.parametrize(("text", "code"), [row[1:] for row in PRECEDENCE], ids=[row[0] for row in PRECEDENCE])
def test_reports_the_first_fault_of_the_pipeline(text, code):
    assert fault(parse_text(text, RESOURCES)).code == code


def world():
    state = State()
    state.resources = dict(RESOURCES)
    state.actors = {"a": None, "b": None}
    state.balances = {name: {"a": 10**9, "b": 0} for name in RESOURCES}
    state.reserved = {name: {} for name in RESOURCES}
    state.sent = {name: {} for name in RESOURCES}
    return state


def judged(text):
    found = answer(parse_text(text, RESOURCES))
    assert transfers_text(found.transfers)
    proposal = Proposal("", "p", 1, found.transfers, found.reasoning)
    return [violation.code for violation in validate(world(), Constraints(), proposal).violations]


@pytest.mark.parametrize(
    ("token", "amount_", "codes"),
    [
        ("12.5", 12500, []),
        ("12.500000", 12500, []),
        ("1e1", 10000, []),
        ("0.001", 1, []),
        ("0", 0, [Code.NON_POSITIVE_AMOUNT]),
        ("-0", 0, [Code.NON_POSITIVE_AMOUNT]),
        ("-0.0", 0, [Code.NON_POSITIVE_AMOUNT]),
        ("0e99999999999999999999", 0, [Code.NON_POSITIVE_AMOUNT]),
        ("-5", -5000, [Code.NON_POSITIVE_AMOUNT]),
        ("-0.0001", Decimal("-0.0001"), [Code.NON_POSITIVE_AMOUNT]),
        ("0.0001", Decimal("0.0001"), [Code.PRECISION]),
        ("12.5000000000000000000000000000000000000000000001", None, [Code.PRECISION]),
        ("1e-400", Decimal("1e-400"), [Code.PRECISION]),
        ("1e-99999999999999999999", None, [Code.PRECISION]),
        ("1e15", 10**18, [Code.OUT_OF_RANGE]),
        ("1e300", Decimal("1e300"), [Code.OUT_OF_RANGE]),
        ("9" * DIGITS_MAX, int("9" * DIGITS_MAX) * 1000, [Code.OUT_OF_RANGE]),
    ],
)
def test_reads_numbers_by_value_and_leaves_the_rest_to_the_validator(token, amount_, codes):
    found = answer(parse_text(amount(token), RESOURCES)).transfers[0].amount
    if amount_ is not None:
        assert (found, type(found)) == (amount_, type(amount_))
    assert judged(amount(token)) == codes


@pytest.mark.parametrize("token", ["5", "5.0", "0", "-0.0", "0.00001", "1e-400", "1" * DIGITS_MAX])
def test_keeps_an_amount_of_an_unknown_resource_in_units(token):
    text = amount(token).replace("energy", "Energy")
    found = answer(parse_text(text, RESOURCES)).transfers[0].amount
    assert isinstance(found, Decimal)
    assert found == Decimal(token)
    assert judged(text) == [Code.UNKNOWN_RESOURCE]


@pytest.mark.parametrize("actor", ["\u200ba", "\u0430", " a", "A", "a\u0301"])
def test_leaves_an_id_that_only_looks_right_to_the_validator(actor):
    assert judged(GOOD.replace('"a"', json.dumps(actor))) == [Code.UNKNOWN_ACTOR]


def test_reads_escapes():
    text = GOOD.replace("surplus", '\\ud83d\\ude00 \\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9')
    assert answer(parse_text(text, RESOURCES)).reasoning == '😀 "\\/\b\f\n\r\té'


# --- what a client sends ----------------------------------------------------------------------------------------------

UUID = "6BA7B810-9dad-11d1-80b4-00c04fd430c8"


def test_reads_what_a_client_sends():
    assert parse_client(GOOD, RESOURCES) == (None, ANSWER)
    assert parse_client('{"transfers": []}', RESOURCES) == (None, Answer((), ""))
    assert parse_client(f'{{"proposal_id": "{UUID}", "transfers": []}}', RESOURCES) == (UUID.lower(), Answer((), ""))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"proposal_id": null, "transfers": []}', "wrong_type"),
        ('{"proposal_id": "6ba7b810", "transfers": []}', "wrong_type"),
        (f'{{"proposal_id": "{{{UUID}}}", "transfers": []}}', "wrong_type"),
        (f'{{"proposal_id": "{UUID}\\n", "transfers": []}}', "wrong_type"),
        ('{"transfers": [], "epoch": 1}', "unknown_field"),
        ('{"reasoning": ""}', "missing_field"),
        ('{"transfers": []', "truncated"),
    ],
)
def test_refuses_what_no_client_may_send(text, code):
    found = parse_client(text, RESOURCES)
    assert isinstance(found, Malformed)
    assert found.code == code


def test_reads_a_proposal_that_is_part_of_a_document():
    document = load(f'{{"epoch": 3, "proposal": {GOOD}}}')
    assert document["epoch"] == 3
    assert answer_of(document["proposal"], RESOURCES) == ANSWER
    assert answer_of(document, RESOURCES, b"raw") == Malformed(
        "unknown_field", "epoch: expected only transfers, reasoning", b"raw"
    )


# --- Gemini's body ----------------------------------------------------------------------------------------------------


def part(**fields):
    return fields


BODIES = [
    # (what, status, body, result, what the detail says)
    ("good", 200, envelope(), ANSWER, None),
    ("good in two parts", 200, envelope(parts=[part(text=GOOD[:9]), part(text=GOOD[9:])]), ANSWER, None),
    ("after a thought", 200, envelope(parts=[part(text="Hm.", thought=True), part(text=GOOD)]), ANSWER, None),
    ("with a signature", 200, envelope(parts=[part(text=GOOD, thoughtSignature="x")]), ANSWER, None),
    ("and a bare signature", 200, envelope(parts=[part(text=GOOD), part(thoughtSignature="x")]), ANSWER, None),
    ("SAFETY", 200, envelope(reason="SAFETY"), "not_finished", "finishReason: SAFETY"),
    ("RECITATION", 200, envelope(reason="RECITATION"), "not_finished", "RECITATION"),
    ("MAX_TOKENS", 200, envelope(reason="MAX_TOKENS"), "not_finished", "MAX_TOKENS"),
    ("SAFETY without text", 200, envelope(reason="SAFETY", parts=[]), "not_finished", "SAFETY"),
    ("no reason", 200, envelope(reason=None), "not_finished", "found null"),
    ("an unknown reason", 200, envelope(reason="stop"), "not_finished", "stop"),
    ("blocked", 200, b'{"promptFeedback": {"blockReason": "SAFETY"}}', "no_answer", "blocked: SAFETY"),
    ("no candidates", 200, b"{}", "no_answer", "candidates"),
    ("candidates null", 200, b'{"candidates": null}', "no_answer", "candidates"),
    ("candidates empty", 200, b'{"candidates": []}', "no_answer", "candidates"),
    ("empty body", 200, b"", "no_answer", "empty"),
    ("blank body", 200, b"\r\n", "no_answer", "empty"),
    ("function call", 200, envelope(parts=[part(functionCall={"name": "f"})]), "no_answer", "functionCall"),
    ("thoughts only", 200, envelope(parts=[part(text=GOOD, thought=True)]), "no_answer", "no text"),
    ("no parts", 200, envelope(parts=[]), "no_answer", "no text"),
    ("no content", 200, b'{"candidates": [{"finishReason": "STOP"}]}', "no_answer", "no text"),
    ("empty text", 200, envelope("  "), "no_answer", "no text"),
    ("a call beside", 200, envelope(parts=[part(text=GOOD), part(functionCall={})]), "not_pure_json", "parts[1]"),
    ("two candidates", 200, b'{"candidates": [{}, {}]}', "multiple_values", "2 candidates"),
    ("candidates no list", 200, b'{"candidates": {"a": 1}}', "wrong_type", "candidates"),
    ("a candidate that is text", 200, b'{"candidates": ["x"]}', "wrong_type", "candidates[0]"),
    ("a part that is text", 200, envelope(parts=["x"]), "wrong_type", "parts[0]"),
    ("a text that is a number", 200, envelope(parts=[part(text=1)]), "wrong_type", "parts[0]"),
    ("a stream", 200, b"[" + envelope() + b"]", "wrong_type", "expected an object"),
    ("duplicate key", 200, b'{"candidates": [], "candidates": []}', "duplicate_key", "candidates"),
    ("not UTF-8", 200, b'{"a": "\xff"}', "bad_unicode", "byte 7"),
    ("U+0000 in a thought", 200, envelope(parts=[part(text="\0", thought=True)]), "bad_unicode", "U+0000"),
    ("a lone surrogate", 200, envelope("\ud800"), "bad_unicode", "surrogate"),
    ("deep", 200, b'{"a":' * 5000, "too_deep", "64 levels"),
    ("huge", 200, envelope("x" * 10_000_000), "too_large", "bytes"),
    ("fence in the text", 200, envelope(f"```json\n{GOOD}\n```"), "not_pure_json", "```json"),
    ("truncated text", 200, envelope(GOOD[:-9]), "truncated", "reasoning"),
    ("bytes of 10 MB under 429", 429, b"x" * 10_000_000, "quota", "HTTP 429"),
    ("429", 429, b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}', "quota", "HTTP 429 RESOURCE_EXHAUSTED"),
    ("500", 500, b"", "transport", "HTTP 500"),
    ("503", 503, b'{"error": {"status": "UNAVAILABLE"}}', "transport", "HTTP 503 UNAVAILABLE"),
    ("502 in HTML", 502, b"<html>", "transport", "HTTP 502"),
    ("408", 408, b"", "transport", "HTTP 408"),
    ("204", 204, b"", "transport", "HTTP 204"),
    ("401", 401, b"", "auth", "HTTP 401"),
    ("403", 403, b"", "auth", "HTTP 403"),
    ("400", 400, b'{"error": {"status": "INVALID_ARGUMENT"}}', "config", "HTTP 400 INVALID_ARGUMENT"),
    ("400 for the key", 400, b'{"error": {"details": [{"reason": "API_KEY_INVALID"}]}}', "auth", "API_KEY_INVALID"),
    ("404", 404, b'{"error": "no"}', "config", "HTTP 404"),
    ("a redirect", 302, b"", "config", "HTTP 302"),
    ("a status word that is none", 503, b'{"error": {"status": "key=x"}}', "transport", "HTTP 503"),
    ("HTML", 200, b"\xef\xbb\xbf <!doctype html>", "transport", "HTML"),
    ("plain text", 200, b"upstream error", "transport", "broken body"),
    ("cut off", 200, envelope()[:-20], "transport", "broken body"),
    ("an error under 200", 200, b'{"error": {"code": 429}}', "quota", "HTTP 429"),
    ("an error without code", 200, b'{"error": {}}', "transport", "HTTP 500"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "result", "said"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES]
)
def test_gives_every_body_exactly_one_result(status, body, result, said):
    found = parse_body(status, body, RESOURCES)
    if isinstance(result, Answer):
        assert found == result
        return
    if result in set(Fault):
        assert (fault(found).code, fault(found).raw) == (result, body)
    else:
        assert failure(found).kind == result
    assert said in found[1]
    assert found[1].isprintable()


def test_takes_no_response_for_a_failed_transport():
    assert parse_body(None, b"", RESOURCES) == Unavailable("transport", "no response")
    assert parse_body(None, b"", RESOURCES, failure="timeout\nafter 30 s")[1] == "timeout\\u000aafter 30 s"


def test_passes_on_nothing_of_an_error_but_its_status_word():
    body = b'{"error": {"status": "PERMISSION_DENIED", "message": "key SECRET is not valid"}}'
    assert failure(parse_body(403, body, RESOURCES)).detail == "HTTP 403 PERMISSION_DENIED"


def test_reads_what_a_body_says_about_itself():
    usage = {"promptTokenCount": 7, "thoughtsTokenCount": 3, "candidatesTokenCount": True, "other": 1}
    found = about(envelope(usageMetadata=usage))
    assert found == ("gemini-x", "STOP", {"prompt": 7, "thoughts": 3})
    assert about(b"<html>") == about(b'{"candidates": [1], "usageMetadata": 1, "modelVersion": 1}') == (None, None, {})


def test_says_it_in_one_short_line():
    assert printable("a\nb\u202ec\U000e0001") == "a\\u000ab\\u202ec\\U000e0001"
    assert printable("x" * 300) == "x" * 197 + "..."
    assert printable("x" * 200) == "x" * 200
    found = fault(parse_text(json.dumps({"k\n" * 500: 1}), RESOURCES))
    assert found.detail.startswith("k\\u000ak")
    assert len(found.detail) <= DETAIL_MAX


# --- nothing raises, nothing is repaired ------------------------------------------------------------------------------

SCRAPS = st.sampled_from(
    [*'{}[]",:\\ 0-.eE', '"amount"', '"transfers"', '"a":', "1e5", "NaN", "nul", "\\u", "\\ud83d", "\0", "\ud800", GOOD]
)
TEXT = st.one_of(st.text(), st.lists(SCRAPS, max_size=12).map("".join))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(st.characters(codec="utf-8", min_codepoint=1)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc\n\u202e"), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(TEXT, st.integers(0, len(GOOD)), st.integers(0, 20))
def test_gives_any_text_exactly_one_result(scrap, at, cut):
    for text in (scrap, GOOD[:at] + scrap + GOOD[at + cut :]):
        found = parse_text(text, RESOURCES)
        if isinstance(found, Malformed):
            assert found.code in set(Fault)
            assert len(found.detail) <= DETAIL_MAX
            found.detail.encode()
        else:
            assert set(json.loads(text)) == {"transfers", "reasoning"}, "what is read is what is written"
        assert isinstance(parse_client(text, RESOURCES), tuple)


@given(
    st.binary() | TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")), st.sampled_from([None, 200, 429, 500])
)
def test_gives_any_bytes_exactly_one_result(body, status):
    assert isinstance(parse_body(status, body, RESOURCES), Answer | Malformed | Unavailable)
    about(body)


@given(st.binary(max_size=8), st.integers(0, 200), st.integers(0, 8))
def test_gives_any_damaged_body_exactly_one_result(scrap, at, cut):
    body = envelope()
    found = parse_body(200, body[:at] + scrap + body[at + cut :], RESOURCES)
    assert isinstance(found, Answer | Malformed | Unavailable)


@given(JSON, st.sampled_from([None, 1]), st.booleans())
def test_reads_json_as_the_standard_library_does(value, indent, ascii_):
    assert load(json.dumps(value, indent=indent, ensure_ascii=ascii_)) == value


NUMBERS = ["0", "-0", "-0.0", "1.50", "1E-2", "-1e+3", "1e400", "0e999", "01", "1.", "-", "NaN", "1e-20000", "9" * 65]
PIECES = ["[" * 60, "[" * 70 + "]" * 70, '"a": 1, "a": 2, ', "\\u0000", "\\ud800", "\\q", "\0", "\t", ",", "\n", "true"]


def read_twice(text, monkeypatch):
    """What the quick reader makes of a text, as far as it goes, and what the careful one does."""
    quick = load(text) if reply._quickly(text) is not reply._UNSURE else None
    with monkeypatch.context() as patch:
        patch.setattr(reply, "_quickly", lambda _: reply._UNSURE)
        return repr(load(text) if quick is None else quick), repr(load(text))


@pytest.mark.parametrize("scrap", [*NUMBERS, *PIECES])
def test_the_quick_reader_reads_nothing_otherwise_than_the_careful_one(scrap, monkeypatch):
    for text in [amount(scrap), *(GOOD[:at] + scrap + GOOD[at:] for at in range(len(GOOD) + 1))]:
        quick, careful = read_twice(text, monkeypatch)
        assert quick == careful


@given(JSON | TEXT, st.sampled_from([None, 1]), st.integers(0, 40), st.integers(0, 3))
def test_the_quick_reader_reads_no_json_otherwise(value, indent, at, cut):
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    with pytest.MonkeyPatch.context() as patch:
        quick, careful = read_twice(text[:at] + text[at + cut :], patch)
    assert quick == careful


def test_the_quick_reader_reads_what_is_good():
    assert reply._quickly(GOOD) == load(GOOD) and reply._quickly(GOOD.replace("surplus", "\\u00e9")) is reply._UNSURE


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("surplus", "\\ud83d\\ude00é"), amount("-12.5e+10")])
def test_takes_every_beginning_of_a_reply_for_truncated(text):
    codes = {parse_text(text[:end], RESOURCES)[0] for end in range(1, len(text))}
    assert codes == {"truncated"}
