"""Tables of boxes from spreadsheets and detectors, with various separators and encodings."""

import pytest

from examples.data.boxes import Box, read_boxes

A, B = Box("a.png", 10, 20, 30, 40), Box("b.png", 1.5, 2, 3, 4)
HEADER = ["image", "x", "y", "width", "height"]
ROWS = [["a.png", "10", "20", "30", "40"], ["b.png", "1.5", "2", "3", "4"]]


def table(rows, mark=",", newline="\n"):
    return "".join(mark.join(row) + newline for row in rows)


def read(tmp_path, content):
    path = tmp_path / "boxes.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_boxes(path)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_any_separator_with_and_without_a_header(tmp_path, mark, newline, header, count):
    rows = [HEADER] * header + ROWS[:count]
    boxes, report = read(tmp_path, table(rows, mark, newline))
    assert boxes == [A, B][:count]
    assert report.clean
    assert (report.rows, report.kept) == (count, count)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"]
)  # with marks, as Python's codecs write them
@pytest.mark.parametrize("name", ["Müller.png", "a.png"])
def test_any_encoding(tmp_path, encoding, name):
    boxes, report = read(tmp_path, f"{name},10,20,30,40\n".encode(encoding))
    assert boxes == [Box(name, 10, 20, 30, 40)]
    assert report.clean


@pytest.mark.parametrize(
    "content",
    [
        "a.png;10,0;20,0;30,0;40,0\nb.png;1,5;2,0;3,0;4,0\n",  # a spreadsheet with decimal commas
        "a.png;10;20;30;40\nb.png;1,5;2;3;4\n",
        "sep=;\na.png;10;20;30;40\nb.png;1,5;2;3;4\n",
        '"a.png","10","20","30","40"\n"b.png","1.5","2","3","4"\n',
        "a.png, 10, 20, 30, 40\nb.png , 1.5, 2, 3, 4\n",
        "\n\na.png,10,20,30,40\n,,,,\nb.png,1.5,2,3,4\n \n",
        "height,width,score,y,x,image\n40,30,0.9,20,10,a.png\n4,3,0.8,2,1.5,b.png\n",
        "#Filename;Left;Top;W;H\na.png;10;20;30;40\nb.png;1.5;2;3;4\n",
    ],
)
def test_what_spreadsheets_write(tmp_path, content):
    boxes, report = read(tmp_path, content)
    assert boxes == [A, B]
    assert report.clean


def test_names_may_contain_separators(tmp_path):
    boxes, _ = read(tmp_path, '"a,b;c.png",10,20,30,40\nd e.png,1,2,3,4\n')
    assert [box.image for box in boxes] == ["a,b;c.png", "d e.png"]


@pytest.mark.parametrize(
    "line",
    [
        "c.png,10,20,abc,40",
        "c.png,10,20,30",
        "c.png,,,,",
        ",10,20,30,40",
        "c.png,a,b,c,d",
        "c.png,10,20,30,40,0.98",
        '"c.png,10,20,30,40',
        "x" * 200_000,
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_damaged_line_is_reported_wherever_it_is(tmp_path, line, place):
    lines = ["a.png,10,20,30,40", "b.png,1.5,2,3,4"]
    boxes, report = read(tmp_path, "\n".join([*lines[:place], line, *lines[place:]]))
    assert boxes == [A, B]
    assert (report.rows, report.kept) == (3, 2)
    assert report.left_out["line that is not image,x,y,width,height"].examples == [
        f"line {place + 1}"
    ]


@pytest.mark.parametrize("row", ["a.png,0,0,0,9", "a.png,nan,0,1,1", "a.png,0,0,inf,1"])
def test_a_box_without_a_size_is_reported(tmp_path, row):
    boxes, report = read(tmp_path, f"image,x,y,width,height\n{row}\na.png,10,20,30,40\n")
    assert boxes == [A]
    assert report.left_out["box of no size"].examples == ["line 2"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found none"),
        (b"\n \n,,,\n", "found none"),
        (b"image,x,y,width,height\n", "expected a line"),
        (b"a.png,10,20,30\n", r"left out: 1 person, line .* \(line 1\)"),
        (b"image,x1,y1,x2,y2\na.png,1,2,3,4\n", "header with image.* found image, x1, y1, x2, y2"),
        (b"image,x,x,y,width,height\na.png,1,1,2,3,4\n", "once each"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "expected a text file"),
        ("a.png,1,2,3,4\n".encode("utf-16-le"), "expected a text file"),
        (b"\xff\xfea", "expected a text file"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, words):
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path, content)
    assert "boxes.csv" in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_boxes(tmp_path / "nowhere.csv")
