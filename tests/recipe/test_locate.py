"""YAML as recipes read it: 1.2, nothing constructed, every node with its place."""

from pathlib import Path

import pytest

from alignment.recipe.locate import Node, node_at, read_nodes


def read(tmp_path: Path, text: str | bytes) -> tuple[Node | None, list]:
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_nodes(path)


def value(tmp_path: Path, text: str) -> object:
    root, mistakes = read(tmp_path, f"key: {text}\n")
    assert mistakes == []
    return root.plain()["key"]


def first_mistake(tmp_path: Path, text: str | bytes) -> tuple[int, int, str]:
    """Line and column from 1, and message and advice, of the only mistake."""
    _, mistakes = read(tmp_path, text)
    assert len(mistakes) == 1, [mistake.text() for mistake in mistakes]
    place = mistakes[0].place
    return place.line + 1, place.column + 1, f"{mistakes[0].message} = {mistakes[0].advice}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-5", 1e-5),
        ("1e5", 100000.0),
        ("1E+3", 1000.0),
        ("2.0e-4", 2e-4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("+7", 7),
        ("010", 10),
        ("0o10", 8),
        ("0x1f", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("v1_0", "v1_0"),
        ("'1e5'", "1e5"),
        ('"true"', "true"),
        ("''", ""),
        ("train[:90%]", "train[:90%]"),
        ("<|pad|>", "<|pad|>"),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(tmp_path: Path, text: str, expected: object) -> None:
    found = value(tmp_path, text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("text", ["1_000", "1_0.5", "1e1_0", "-1_0"])
def test_numbers_with_underscores_are_refused_with_the_number_to_write(tmp_path: Path, text: str) -> None:
    line, column, said = first_mistake(tmp_path, f"a: 1\nb: {text}\n")
    assert (line, column) == (2, 4)
    assert said == f"found {text}; a number without underscores was expected = write {text.replace('_', '')}"


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".nan", "1e999"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, text: str) -> None:
    assert "a finite number was expected" in first_mistake(tmp_path, f"a: {text}\n")[2]


def test_every_node_knows_where_it_and_its_key_stand(tmp_path: Path) -> None:
    root, _ = read(tmp_path, "# note\na:\n  - b: 'é'   # x\n    cc: [1, {d: 2}]\n")
    places = {}
    for path in [("a",), ("a", 0, "b"), ("a", 0, "cc"), ("a", 0, "cc", 1, "d")]:
        node = node_at(root, path)
        places[path] = ((node.key.line, node.key.column), (node.place.line, node.place.column))
    assert places == {
        ("a",): ((1, 0), (2, 2)),
        ("a", 0, "b"): ((2, 4), (2, 7)),
        ("a", 0, "cc"): ((3, 4), (3, 8)),
        ("a", 0, "cc", 1, "d"): ((3, 13), (3, 16)),
    }
    assert node_at(root, ("a", 0, "b")).end.column == 10
    assert node_at(root, ("a", 7)) is None


def test_doubled_keys_are_all_located_and_the_first_is_read_on(tmp_path: Path) -> None:
    root, mistakes = read(tmp_path, "a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert [(m.place.line + 1, m.message) for m in mistakes] == [
        (4, "key 'c' is given twice; first on line 3"),
        (5, "key 'a' is given twice; first on line 1"),
    ]
    assert root.plain() == {"a": 1, "b": {"c": 1}}


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("a: 1\nb: *x\n", 2, 4, "alias '*x'"),
        ("a: &x 1\n", 1, 4, "anchor '&x'"),
        ("a: 1\nb: !!python/object/apply:os.system ['true']\n", 2, 4, "tag 'tag:yaml.org,2002:python"),
        ("a: !!str 5\n", 1, 4, "tag 'tag:yaml.org,2002:str'"),
        ("a: !mine {b: 1}\n", 1, 4, "tag '!mine'"),
        ("a: 1\n<<: {b: 1}\n", 2, 1, "merge key '<<'"),
        ("a: 1\n? [b, c]\n: 2\n", 2, 3, "found a list of 2 as a key"),
        ("a:\nb: 1\n", 1, 1, "found nothing; a value was expected"),
        ("a: # later\n  # later\n", 1, 1, "found nothing; a value was expected"),
        ("a: 1\n---\nb: 1\n", 2, 1, "a second document"),
        ("", 1, 1, "found nothing"),
        ("# only a comment\n", 1, 1, "found nothing"),
        ("a: 1\n\tb: 2\n", 2, 1, "indent with spaces, not tabs"),
        ("a: b: c\n", 1, 5, "put quotes around text with ': '"),
        ("a: @x\n", 1, 4, "put quotes around text that begins with this character"),
        ("a:\n  - b\n  c: 1\n", 3, 3, "which begins on line 2"),
        ("a: 'x\n", 2, 1, "which begins on line 1"),
        ("a: \x07\n", 1, 4, "is not allowed in YAML"),
        (b"a: 1\nb: caf\xe9\n", 2, 7, "byte 0xe9 is not UTF-8 text = save the file as UTF-8"),
    ],
)
def test_what_is_not_a_plain_recipe_is_refused_at_its_place(tmp_path, text, line, column, said) -> None:
    found = first_mistake(tmp_path, text)
    assert found[:2] == (line, column), found
    assert said in found[2]


def test_an_alias_bomb_is_refused_without_being_built(tmp_path: Path) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 60)]
    root, mistakes = read(tmp_path, "\n".join(["l0: &l0 [x, x, x]", *levels]))
    assert root is not None
    assert any("alias '*l0'" in mistake.message for mistake in mistakes)


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "{b: " * 5000, "- " * 5000])
def test_deep_nesting_stops_the_reader_and_not_python(tmp_path: Path, text: str) -> None:
    assert "nested more than 20 deep" in first_mistake(tmp_path, text)[2]


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    assert "found 1000010 bytes; at most 1000000" in first_mistake(tmp_path, "a: " + "x" * 1_000_007)[2]


def test_a_missing_file_and_a_folder_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text("stage: sft\n")
    _, missing = read_nodes(tmp_path / "stf.yaml")
    assert missing[0].text().startswith(f"{tmp_path / 'stf.yaml'}:1:1: error: cannot be read: No such file")
    assert missing[0].advice == f"did you mean {tmp_path / 'sft.yaml'}?"
    _, folder = read_nodes(tmp_path)
    assert folder[0].advice == "a file was expected"


@pytest.mark.parametrize("line_break", ["\r\n", "\n", "\r"])
def test_lines_are_counted_alike_for_every_line_break_and_byte_order_mark(tmp_path: Path, line_break: str) -> None:
    text = line_break.join(["\ufeffa: 1", "b: 'x y'", "c: 1_0", ""])
    _, mistakes = read(tmp_path, text.encode())
    shown = mistakes[0].text().splitlines()
    assert shown[0].split(": ")[0].endswith("r.yaml:3:4")
    assert shown[1] == "     3 | c: 1_0"
    assert shown[2].index("^") == shown[1].index("1_0")


def test_the_caret_of_a_long_line_stays_in_the_window(tmp_path: Path) -> None:
    _, mistakes = read(tmp_path, "a: [" + "text, " * 200 + "1_0]\n")
    _, line, caret, _ = mistakes[0].text().splitlines()
    assert len(line) < 120
    assert line[caret.index("^") :].startswith("1_0")
