"""YAML read strictly: what JSON could say gets in, everything else is refused with its line."""

import json
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gridgov.errors import BadInput
from sim import strict_yaml
from sim.strict_yaml import NUMBER_MAX, SIZE_MAX, Mark, assign, dotted, parse, parse_value, read_text


def value(text):
    return parse(text, "f.yaml").value


def at(root, path):
    for step in path:
        root = root[step]
    return root


def refusal(text):
    with pytest.raises(BadInput) as caught:
        parse(text, "f.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("scalar", "meaning"),
    [
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("12.50", Decimal("12.50")),
        ("1e3", Decimal("1e3")),
        ("-2.5E-2", Decimal("-0.025")),
        ("true", True),
        ("false", False),
        ("null", None),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("True", "True"),
        ("Null", "Null"),
        ("~", "~"),
        ("012", "012"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        (".5", ".5"),
        ("5.", "5."),
        ("+5", "+5"),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("NaN", "NaN"),
        ("2016-07-31", "2016-07-31"),
        ("2016-07-31T23:00:00Z", "2016-07-31T23:00:00Z"),
        ('"12"', "12"),
        ("'null'", "null"),
        ("{a: [1, x], b: {}}", {"a": [1, "x"], "b": {}}),
        ("[]", []),
        ("''", ""),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("home-{n}", "home-{n}"),
    ],
)
def test_reads_a_plain_scalar_as_json_would(scalar, meaning):
    found = value(f"key: {scalar}")["key"]
    assert (found, type(found)) == (meaning, type(meaning))


def test_keeps_the_digits_of_a_number():
    assert str(value("k: 0.10000000000000000000000001")["k"]) == "0.10000000000000000000000001"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3: a: key given twice (first on line 1); expected once"),
        ("x: {a: 1, a: 1}", "f.yaml:1: x.a: key given twice (first on line 1); expected once"),
        ("x:\n  - {name: pv, a: 1, 'a': 1}", "f.yaml:2: x.pv.a: key given twice (first on line 2); expected once"),
        ("a: &x 1", "f.yaml:1: a: found the anchor &x; write it out"),
        ("a: 1\nb: *x", "f.yaml:2: b: found the alias *x; write it out"),
        ("&k a: 1", "f.yaml:1: found the anchor &k; write it out"),
        ("a:\n  <<: {b: 1}", "f.yaml:2: a: found the merge key <<; write out what it merges"),
        ("a: !!str 1", "f.yaml:1: a: found the tag 'tag:yaml.org,2002:str'; expected none"),
        (
            "a:\n- !!python/object/apply:os.system [x]",
            "f.yaml:2: a.0: found the tag 'tag:yaml.org,2002:python/object/apply:os.system'; expected none",
        ),
        ("a: 1\n---\nb: 1", "f.yaml:2: found a second document; expected one"),
        ("1: a", "f.yaml:1: found the key 1; expected text, in quotes"),
        ("true: a", "f.yaml:1: found the key true; expected text, in quotes"),
        ("? [a]\n: b", "f.yaml:1: found a key that is no text; expected text"),
        ("a:\nb: 1", "f.yaml:1: a: found no value; expected one, or null, {}, [] or ''"),
        ("a: {b}", "f.yaml:1: a.b: found no value; expected one, or null, {}, [] or ''"),
        ("", "f.yaml:1: found nothing; expected a value"),
        ("# only a comment", "f.yaml:1: found nothing; expected a value"),
        ("a:\n\tb: 1", "f.yaml:2: found a tab; indent with spaces"),
        ("a: [1, 2", "f.yaml:2: did not find expected ',' or ']'; expected YAML"),
        ("a: 1\n b: 2", "f.yaml:2: mapping values are not allowed in this context; expected YAML"),
        (
            "a: {id: home-{n}, count: 3}",
            "f.yaml:1: did not find expected ',' or '}'; expected YAML: text with {n} needs quotes inside braces",
        ),
        ("a: 1\nb: \x07", "f.yaml:2: found the control character '\\x07'; expected text"),
        ('a: 1\nb: "\\0"', "f.yaml:2: b: found a control character; expected text"),
        ("a: \ud800", "f.yaml:1: found the control character '\\ud800'; expected text"),
        ("a: " + "9" * 65, f"f.yaml:1: a: found a number of 65 characters; expected at most {NUMBER_MAX}"),
        ("a: 1e99999999999999999999", "f.yaml:1: a: found 1e99999999999999999999; expected a number of sensible size"),
        ("a:\n " + "[" * 32 + "]" * 32, "f.yaml:2: found more than 32 levels; expected fewer"),
        ("a: " + "x" * SIZE_MAX, f"f.yaml:1: found {SIZE_MAX + 3:,} characters; expected at most {SIZE_MAX:,} bytes"),
    ],
)
def test_refuses(text, message):
    assert refusal(text) == message


def test_refuses_a_billion_laughs_at_its_first_anchor():
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert refusal(bomb) == "f.yaml:1: a: found the anchor &a; write it out"


def test_refuses_nesting_that_would_exhaust_the_stack():
    assert refusal("[" * 100_000).startswith("f.yaml:1: found more than 32 levels")


def test_reads_the_same_without_the_c_parser(monkeypatch):
    text = "a: {b: [1, 1e3, 'x'], c: null}\nd: no\ne: |\n  text\n"
    fast = parse(text, "f.yaml")
    monkeypatch.setattr(strict_yaml, "_LOADER", yaml.SafeLoader)
    assert (parse(text, "f.yaml").value, parse(text, "f.yaml").marks) == (fast.value, fast.marks)
    assert refusal("a: &x 1") == "f.yaml:1: a: found the anchor &x; write it out"
    assert refusal("a:\n\tb: 1") == "f.yaml:2: found a tab; indent with spaces"


def test_knows_where_everything_stands():
    document = parse("a: 1\nlist:\n  - {x: 2}\n  -   y: 3\n", "f.yaml")
    assert document.marks == {
        (): Mark(1, 1),
        ("a",): Mark(1, 1),
        ("list",): Mark(2, 1),
        ("list", 0): Mark(3, 5),
        ("list", 0, "x"): Mark(3, 6),
        ("list", 1): Mark(4, 7),
        ("list", 1, "y"): Mark(4, 7),
    }
    assert document.mark(("list", 1, "absent")) == Mark(4, 7)
    assert str(document.bad(("list", 1, "y"), "found 3; expected 4")) == "f.yaml:4: list.1.y: found 3; expected 4"
    assert document.bad(("list", 1, "y"), "").path == ("list", 1, "y")


def test_names_elements_in_a_path_where_they_have_a_name():
    root = {"flows": [{"name": "pv"}, {"x": 1}], "actors": [{"id": "home-1"}], "proposers": [{"policy": "greedy"}]}
    assert dotted(root, ("flows", 0, "absent")) == "flows.pv.absent"
    assert dotted(root, ("flows", 1)) == "flows.1"
    assert dotted(root, ("actors", 0)) == "actors.home-1"
    assert dotted(root, ("proposers", 0, "policy")) == "proposers.greedy.policy"


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("seed", ("seed",)),
        ("new", ("new",)),
        ("new.deep.key", ("new", "deep", "key")),
        ("flows.pv.amount", ("flows", 0, "amount")),
        ("flows.1.amount", ("flows", 1, "amount")),
        ("flows.a.b.amount", ("flows", 1, "amount")),
        ("flows.pv", ("flows", 0)),
        ("set.x.y", ("set", "x.y")),
        ("set.x.z", ("set", "x", "z")),
        ("limit.energy", ("limit", "energy")),
        ("limit.home.1.energy", ("limit", "home.1", "energy")),
        ("gone.key", ("gone", "key")),
    ],
)
def test_sets_what_a_dotted_key_leads_to(key, path):
    root = {
        "seed": 1,
        "flows": [{"name": "pv"}, {"name": "a.b"}],
        "set": {"x.y": 1},
        "limit": 5,
        "gone": None,
    }
    assert assign(root, key, 9, names=["home.1"], shorthand=lambda where: where == ("limit",)) == path
    assert at(root, path) == 9


def test_a_number_that_is_shorthand_becomes_the_default():
    root = {"limit": Decimal("0.5")}
    assign(root, "limit.energy", 2, shorthand=lambda where: where == ("limit",))
    assert root == {"limit": {"default": Decimal("0.5"), "energy": 2}}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("flows.vp.amount", "unknown element 'vp'; expected one of: pv, 1"),
        ("flows.2.amount", "unknown element '2'; expected one of: pv, 1"),
        ("none.0", "found an empty list; expected an element '0'"),
        ("seed.x", "found 1; expected something that has a 'x'"),
        ("a..b", "found the key 'a..b'; expected names with a dot between them"),
        ("", "found the key ''; expected names with a dot between them"),
    ],
)
def test_refuses_a_key_that_leads_nowhere(key, message):
    with pytest.raises(BadInput) as caught:
        assign({"seed": 1, "flows": [{"name": "pv"}, {}], "none": []}, key, 9)
    assert str(caught.value) == message


def test_an_edit_is_the_place_of_what_it_set_and_of_what_it_made():
    document = parse("a: {b: 1}\nc: 2\n", "f.yaml")
    document.edit("a.b", 5, "--set a.b=5")
    document.edit("a.new.key", 6, "--set a.new.key=6")
    assert document.place(("a", "b")) == document.place(("a", "b", "below")) == "--set a.b=5"
    assert document.place(("a", "new")) == "--set a.new.key=6"
    assert document.place(("a",)) == "f.yaml:1"
    assert document.place(("c",)) == "f.yaml:2"
    document.edit("a.b", 7, "--set a.b=7")
    assert document.place(("a", "b")) == "--set a.b=7"
    with pytest.raises(BadInput, match=r"^--set c.d=1: c: found 2; expected something that has a 'd'$"):
        document.edit("c.d", 1, "--set c.d=1")


def test_reads_one_value_by_the_same_rules():
    assert parse_value("{uniform: 2.5}", "--set x") == {"uniform": Decimal("2.5")}
    with pytest.raises(BadInput, match=r"^--set x=: found nothing; expected a value$"):
        parse_value("", "--set x=")
    with pytest.raises(BadInput, match=r"^--set x: found the anchor &a; write it out$"):
        parse_value("&a 1", "--set x")


def test_reads_a_file_or_says_why_not(tmp_path):
    good, binary, large = tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"
    good.write_bytes(b"\xef\xbb\xbfa: 1\n")
    binary.write_bytes(b"a: 1\nb: \xff\n")
    large.write_bytes(b"#" * (SIZE_MAX + 1))
    assert parse(read_text(good), "a.yaml").value == {"a": 1}
    for path, message in (
        (binary, f"{binary}:2: found bytes that are no UTF-8; expected UTF-8 text"),
        (large, f"{large}: found more than {SIZE_MAX:,} bytes; expected a scenario, not data"),
        (tmp_path / "no.yaml", f"{tmp_path / 'no.yaml'}: No such file or directory; expected a file to read"),
        (tmp_path, f"{tmp_path}: Is a directory; expected a file to read"),
    ):
        with pytest.raises(BadInput) as caught:
            read_text(path)
        assert str(caught.value) == message


_texts = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn"], exclude_characters="\ufeff"), max_size=20
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(_texts, below, max_size=4),
    max_leaves=20,
)


@given(_json, st.sampled_from([None, 2]))
def test_reads_every_json_document_as_json_does(document, indent):
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    found = value(text)
    assert found == json.loads(text, parse_float=Decimal)
    assert json.loads(json.dumps(found, default=float)) == document
