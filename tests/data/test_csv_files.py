"""nnkit.data.read of CSV files against Python's own csv module and float()."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnkit.data import csv_files, read

in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def targets(folder: Path, text: str, target: Any) -> tuple[Any, str]:
    """The labels that are read, and their dtype."""
    y = read(written(folder, text), target).y
    assert y is not None
    return y.tolist(), y.dtype.name


def assert_read(path: Path, given: Any, X: Any, y: Any, features: list[str] | None, target: str | None) -> None:
    table = read(path, given)
    assert table.X.tolist() == X
    assert table.X.dtype == np.float64
    assert table.X.flags.writeable
    assert (None if table.y is None else table.y.tolist()) == y
    assert (table.features, table.target) == (features, target)


# What csv writes without changing it: no text that is a number, missing or begins or ends with spaces.
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8).map(lambda text: f"n{text}")
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[float]], list[Any], int]:
    """Names, rows of features, labels of one kind and the column that these are in."""
    header = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    rows = draw(st.lists(st.lists(finite, min_size=len(header) - 1, max_size=len(header) - 1), min_size=1, max_size=6))
    kind: Any = draw(st.sampled_from([names, st.integers(-(2**63), 2**63 - 1), finite]))
    labels = draw(st.lists(kind, min_size=len(rows), max_size=len(rows)))
    return header, rows, labels, draw(st.integers(0, len(header) - 1))


@in_one_folder
@given(
    tables(),
    st.sampled_from("\t;,"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)
def test_tables_are_read_back(tmp_path: Path, table: Any, separator: str, quoting: Any, end: str, bom: str) -> None:
    header, rows, labels, column = table
    text = io.StringIO()
    text.write(bom)
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)
    # Quoted where a name would be taken for the separator.
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator=end).writerow(header)
    for row, label in zip(rows, labels, strict=True):
        writer.writerow([*row[:column], label, *row[column:]])
    path = written(tmp_path, text.getvalue())
    rest = [name for at, name in enumerate(header) if at != column]
    for target in (header[column], column, column - len(header)):
        assert_read(path, target, rows, labels, rest, header[column])
        dtype = targets(tmp_path, text.getvalue(), target)[1]
        assert dtype.startswith({str: "str", int: "int64", float: "float64"}[type(labels[0])])


def test_kinds_of_targets(tmp_path: Path) -> None:
    assert targets(tmp_path, "a,b\n1,1\n2,2\n", "b") == ([1, 2], "int64")
    assert targets(tmp_path, "a,b\n1,1\n2,2.5\n", "b") == ([1.0, 2.5], "float64")
    assert targets(tmp_path, "a,b\n1,1\n2,2.0\n", "b") == ([1.0, 2.0], "float64")
    assert targets(tmp_path, "a,b\n1,1\n2,02\n3,x\n", "b")[0] == ["1", "02", "x"]
    assert targets(tmp_path, "a,b\n1,1_0\n2,2\n", "b")[0] == ["1_0", "2"]  # Python alone takes 1_0 for a number


@pytest.mark.parametrize(
    ("text", "target", "wanted"),
    [
        ("1,2\n3,4\n", None, ([[1, 2], [3, 4]], None, None, None)),
        ("1,2\n3,4\n", -1, ([[1], [3]], [2, 4], None, "1")),
        ("1,2\n3,4\n", " 0", ([[2], [4]], [1, 3], None, "0")),
        ("a,b\n1,2\n", None, ([[1, 2]], None, ["a", "b"], None)),
        ("a\n1\n2\n", None, ([[1], [2]], None, ["a"], None)),
        ("5\n6", None, ([[5], [6]], None, None, None)),
        ("\n\n a , b \n\n 1 ; 2\n".replace(",", ";"), "b", ([[1]], [2], ["a"], "b")),
        ('"a, b"\t"c""d"\n1\t"2"\n', None, ([[1, 2]], None, ["a, b", 'c"d'], None)),
        ('"a\nb",c\n1,2\n', "c", ([[1]], [2], ["a\nb"], "c")),
        ('x;"y,z"\n1;2\n', "y,z", ([[1]], [2], ["x"], "y,z")),
        ('x, "y"\n1, " cat "\n', "y", ([[1]], ["cat"], ["x"], "y")),
        ("0,1,kind\n5,6,a\n", "kind", ([[5, 6]], ["a"], ["0", "1"], "kind")),
        ("0,1,kind\n5,6,7\n", None, ([[5, 6, 7]], None, ["0", "1", "kind"], None)),
        ("0,1,kind\n5,6,7\n", "1", ([[5, 7]], [6], ["0", "kind"], "1")),
        ("a,b\r1,2\r", "b", ([[1]], [2], ["a"], "b")),
        ("size (a;b),b,c\n1,2,3\n", None, ([[1, 2, 3]], None, ["size (a;b)", "b", "c"], None)),
        ("a,b\n1\x1c,\x85\u20032\n3,4\n", None, ([[1, 2], [3, 4]], None, ["a", "b"], None)),
        ('a,b\n1\x1c,"\x1f2"\n', "b", ([[1]], [2], ["a"], "b")),
        ("grüße,名\n1,猫\n", "名", ([[1]], ["猫"], ["grüße"], "名")),
    ],
)
def test_ways_to_write_a_table(tmp_path: Path, text: str, target: Any, wanted: Any) -> None:
    assert_read(written(tmp_path, text), target, *wanted)


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", None, "file.csv: empty"),
        ("\n \n".replace(" ", ""), None, "file.csv: empty"),
        ("a,b\n", None, "file.csv: a header line but no samples"),
        ("a,b\n1,2\n3,x\n", None, "file.csv, line 3, column 'b': 'x' is not a number"),
        ('a,b\n"1\n",2\n3,x\n', None, "file.csv, line 4, column 'b': 'x' is not a number"),
        ("a,width\n\n1,2\n3,abc\n", "a", "file.csv, line 4, column 'width': 'abc' is not a number"),
        ("1,2\n3,x\n", None, "file.csv, line 2, column 1: 'x' is not a number"),
        ("1;2,5\n3;4,5\n", None, "file.csv, line 2, column '2,5': '4,5' is not a number"),
        ("a;b\n1;2,5\n", None, "file.csv, line 2, column 'b': '2,5' is not a number"),
        ("a,b\n1,\n", None, "file.csv, line 2, column 'b': no value"),
        ("a,b\n1, \n", "b", "file.csv, line 2, column 'b': no value"),
        ("a,b\n1,x\n2,\n", "b", "file.csv, line 3, column 'b': no value"),
        ("a,b\n1,0\n2,NA\n", "b", "file.csv, line 3, column 'b': 'NA' means no value"),
        ("a,b\n1,NaN\n", None, "file.csv, line 2, column 'b': 'NaN' is not finite"),
        ("a,b\n1,x\n2,nan\n", "b", "file.csv, line 3, column 'b': 'nan' is not finite"),
        ("a,b\n1,1\n2,inf\n", "b", "file.csv, line 3, column 'b': 'inf' is not finite"),
        ("a,b\n1,1e999\n", None, "file.csv, line 2, column 'b': '1e999' is not finite"),
        ("a,b\n1,1_0\n", None, "file.csv, line 2, column 'b': '1_0' is not a number"),
        ("a,b\n1,1\n2,2.5\n3,x\n", "b", "file.csv, line 4, column 'b': 'x' is not a number, but '2.5' is"),
        ("a,b\n1,NE\n2,3\n3,2e1\n", "b", "file.csv, line 4, column 'b': '2e1' is a number, but 'NE' is not"),
        ("a,b\n1,99999999999999999999\n", "b", "file.csv, line 2, column 'b': '99999999999999999999' is too large"),
        ("a,b\n1,9223372036854775808\n", "b", "file.csv, line 2, column 'b': '9223372036854775808' is too large"),
        ("a,b\n1,-9223372036854775809\n", "b", "file.csv, line 2, column 'b': '-9223372036854775809' is too large"),
        ("a,b\n1,2\n3\n", None, "file.csv, line 3: 1 cell; expected 2"),
        ("a,b\n1,2,3\n", None, "file.csv, line 2: 3 cells; expected 2"),
        ("a,b,a\n1,2,3\n", None, "file.csv, line 1: two columns are called 'a'"),
        (",b\n1,2\n", None, "file.csv, line 1: column 0 has no name (pandas"),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", -1, "file.csv, line 1: numbers and 'setosa': if this is a header"),
        ("a,b\n1,2\n", "c", "file.csv: unknown column 'c'; known: a, b"),
        ("width,height\n1,2\n", "widht", "file.csv: unknown column 'widht'; did you mean 'width'"),
        ("a,b\n1,2\n", 2, "file.csv: no column 2; the columns are 0 to 1, or -2 to -1"),
        ("1,2\n", "-3", "file.csv: no column -3"),
        ("1,2\n", "b", "file.csv: no column 'b': the columns have no names; give a number, 0 to 1"),
        ("a\n1\n", "a", "file.csv, line 1: the target is the only column; none is left for X"),
        ('a,b\n1,"2\n', None, "file.csv, line 2: unexpected end of data"),
        ('a,b\n1,"2"3\n', None, "file.csv, line 2: ',' expected after '\"'"),
        (
            'a,b\n\n1,"2\n3,4\n5,6\n',
            None,
            "file.csv, line 3: unexpected end of data; is a quote not closed? It goes on",
        ),
        ('"a,b\n1,2\n', None, "file.csv, line 1: unexpected end of data; is a quote not closed? It goes on to line 2"),
        (
            'a,b\n1,"2\n3,"4"\n',
            None,
            "file.csv, line 2: ',' expected after '\"'; is a quote not closed? It goes on to line 3",
        ),
        (
            'a,b\n1,2\n3,"' + "4,5\n" * 40000,
            None,
            "file.csv, line 3: field larger than field limit (131072); is a quote",
        ),
        ('a,b\n1,"2\n' + "3,4\n" * 99 + '"\n', None, "file.csv, line 102, column 'b': '2\\n3,4\\n"),
        (
            f"a,b\n1,{'7' * 400}\n",
            None,
            f"file.csv, line 2, column 'b': '{'7' * 60}'... (400 characters) is not finite",
        ),
        (b"a,b\n1,2\n\n3,\xff4\n", None, "file.csv, line 4: not UTF-8 text (byte 0xff); save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), None, "file.csv, line 1: not UTF-8 text (byte 0xff)"),
        (b"a,b\n" + b"1,2\n" * 9000 + b"\xe9,2\n", None, "file.csv, line 9002: not UTF-8 text (byte 0xe9)"),
    ],
)
def test_errors_name_the_problem_and_its_line(tmp_path: Path, text: str | bytes, target: Any, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is looked at below
        read(path, target)
    assert str(caught.value).startswith(str(path) + message.removeprefix("file.csv"))


def test_numbers_whose_sum_is_infinite_are_numbers(tmp_path: Path) -> None:
    assert read(written(tmp_path, "1e308,1e308,1e308\n")).X.tolist() == [[1e308] * 3]


@in_one_folder
@given(
    st.binary(max_size=60) | st.text(alphabet='a1,;"\n\r .-_', max_size=40).map(str.encode),
    st.sampled_from([None, 0, "a"]),
)
def test_any_bytes_are_a_table_or_an_error_that_names_the_file(tmp_path: Path, content: bytes, target: Any) -> None:
    path = written(tmp_path, content)
    try:
        table = read(path, target)
    except ValueError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
    else:
        assert table.X.ndim == 2
        assert table.X.size > 0
        assert np.isfinite(table.X).all()
        assert (table.y is None) == (target is None)
        assert table.y is None or table.y.shape == (len(table.X),)


def test_a_line_of_spaces_is_blank(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,y\n1,2,0\n  \n3,4,1\n   \n", "utf-8")
    assert read(path, "y").X.tolist() == [[1, 2], [3, 4]]
    path.write_text('a\n1\n   \n2\n ""\n', "utf-8")
    with pytest.raises(ValueError, match="line 5, column 'a': no value"):  # not what is empty in quotes
        read(path)
    path.write_text("a\tb\n1\t2\n\t\n", "utf-8")
    with pytest.raises(ValueError, match="line 3, column 'a': no value"):  # nor a line of two empty cells
        read(path)


@pytest.mark.parametrize("first", ["0,1,2", "0,1", "0;1;2;3", "0\t1\t2"])
def test_numbers_of_columns_are_a_header_or_a_sample(tmp_path: Path, first: str) -> None:
    path, separator = tmp_path / "a.csv", first[1]
    row = separator.join(["5"] * len(first.split(separator)))
    path.write_text(f"{first}\n{row}\n", "utf-8")
    with pytest.raises(ValueError, match=r"line 1: 0, 1.*: if this is a header of column numbers, .*; if it is a"):
        read(path, -1)
    path.write_text(f"{row}\n{first}\n", "utf-8")
    assert len(read(path, -1).X) == 2
    path.write_text("0\n1\n", "utf-8")  # a single column is one of samples
    assert read(path).X.tolist() == [[0], [1]]


def test_text_without_a_target_says_how_to_name_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,species\n1,setosa\n", "utf-8")
    with pytest.raises(ValueError, match="column 'species': 'setosa' is not a number; if this column contains the"):
        read(path)
    with pytest.raises(ValueError, match=r"column 'species': 'setosa' is not a number$"):
        read(path, "a")


cells = st.sampled_from(
    [
        "1",
        "-2.5",
        "1e5",
        "1_0",
        "0x1",
        "nan",
        "inf",
        "",
        " 3 ",
        "a",
        '"4"',
        '"b,',
        "\u0661",
        "1\x1c",
        "\x851",
        "01",
        "1.",
        "5 6",
        "#",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(cells, min_size=1, max_size=3) | st.just(["1", "2"]), min_size=1, max_size=5),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n  \n"]),
    st.sampled_from([None, 0, -1, "a"]),
)
def test_the_compiled_loop_reads_what_the_rows_say(
    tmp_path: Path, rows: list[list[str]], separator: str, end: str, target: Any
) -> None:
    path = written(tmp_path, end.join(separator.join(row) for row in rows) + end)

    def found() -> Any:
        try:
            table = read(path, target)
        except ValueError as error:
            return str(error)
        return [None if a is None else (a.dtype, a.tolist()) for a in table[:2]], table[2:]

    compiled = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "_read_clean", lambda *given: None)
        assert compiled == found()
