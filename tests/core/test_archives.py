"""Archives are read where they lie, in one order whatever their kind, and nothing in them can do harm."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import DataError
from headrace.getting import archives
from headrace.getting.archives import Limits, extract, members, opened, stem

FILES = {"a-b/x.txt": b"first", "a/y.txt": b"", "a/z/1.bin": bytes(range(256)) * 40, "top.csv": b"1,2\n"}
"""Sorted part by part, `a` comes before `a-b`; sorted as text, it would not."""
ORDER = ["a/y.txt", "a/z/1.bin", "a-b/x.txt", "top.csv"]
KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]


def packed(path: Path, files: dict[str, bytes] = FILES, *extra: tarfile.TarInfo) -> Path:
    """An archive of the kind that its name says; further members of a tar as they are given."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            tar.addfile(described(name, size=len(data)), io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return path


def described(name: str, **attributes: Any) -> tarfile.TarInfo:
    """The header of a tar's member."""
    info = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def zipped(path: Path, name: str, data: bytes = b"", **attributes: Any) -> Path:
    """A zip with one member, described as told."""
    info = zipfile.ZipInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, data)
    return path


def contents(path: Path, limits: Limits = archives.LIMITS) -> dict[str, bytes]:
    return {member.name: member.read() for member in members(path, limits)}


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(path: Path, limits: Limits = archives.LIMITS) -> str:
    """Why an archive is refused, by reading as by unpacking, which must leave nothing behind."""
    with pytest.raises(DataError) as read:
        contents(path, limits)
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataError) as unpacked:
        extract(path, path.parent / "unpacked", limits)
    assert str(read.value) == str(unpacked.value)
    assert sorted(path.parent.rglob("*")) == before
    assert path.name in str(read.value)
    return str(read.value)


class TestReading:
    @pytest.mark.parametrize("kind", KINDS)
    def test_gives_all_files_sorted_by_their_paths(self, tmp_path: Path, kind: str) -> None:
        found = contents(packed(tmp_path / f"data.{kind}"))
        assert list(found) == ORDER
        assert found == FILES

    def test_gives_a_folder_alike(self, tmp_path: Path) -> None:
        extract(packed(tmp_path / "data.zip"), tmp_path / "data")
        found = contents(tmp_path / "data")
        assert list(found) == ORDER
        assert found == FILES

    @pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
    def test_gives_a_single_packed_file_under_its_own_name(
        self, tmp_path: Path, pack: Callable[[bytes], bytes]
    ) -> None:
        path = tmp_path / "train-images-idx3-ubyte.gz"
        path.write_bytes(pack(b"pixels" * 1000))
        assert contents(path) == {"train-images-idx3-ubyte": b"pixels" * 1000}

    def test_goes_by_the_content_and_not_by_the_name(self, tmp_path: Path) -> None:
        assert contents(packed(tmp_path / "data.tar.gz").rename(tmp_path / "data.zip")) == FILES
        assert contents(packed(tmp_path / "data.tar").rename(tmp_path / "data")) == FILES

    def test_leaves_an_archive_in_an_archive_packed(self, tmp_path: Path) -> None:
        inner = packed(tmp_path / "inner.zip").read_bytes()
        assert contents(packed(tmp_path / "outer.tar", {"inner.zip": inner})) == {"inner.zip": inner}

    def test_leaves_out_what_macos_adds(self, tmp_path: Path) -> None:
        files = {"cats/1.jpg": b"cat", "cats/.DS_Store": b"x", "__MACOSX/cats/._1.jpg": b"x"}
        assert contents(packed(tmp_path / "data.zip", files)) == {"cats/1.jpg": b"cat"}

    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_gives_nothing_of_an_empty_archive(self, tmp_path: Path, kind: str) -> None:
        assert contents(packed(tmp_path / f"data.{kind}", {})) == {}

    def test_understands_separators_of_another_system(self, tmp_path: Path) -> None:
        path = zipped(tmp_path / "data.zip", "a-b", b"1")
        path.write_bytes(path.read_bytes().replace(b"a-b", b"a\\b"))
        assert contents(path) == {"a/b": b"1"}

    def test_reads_names_that_are_no_utf8_as_latin1(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "data.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
            tar.addfile(described("Müller.txt"))
        assert list(contents(tmp_path / "data.tar")) == ["Müller.txt"]

    def test_unpacks_a_packed_tar_into_the_home_without_leaving_it_there(
        self, tmp_path: Path, headrace_home: Path
    ) -> None:
        for member in members(packed(tmp_path / "data.tar.gz")):
            assert member.name
            assert list((headrace_home / "work").iterdir()) == []

    @given(
        files=st.dictionaries(
            st.text(st.characters(categories=["L", "N", "P"], exclude_characters="/\\"), min_size=1, max_size=8).filter(
                lambda name: name.strip(".") and name != ".DS_Store"
            ),
            st.binary(max_size=300),
            max_size=6,
        )
    )
    def test_gives_back_any_folder(self, tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
        folder = tmp_path_factory.mktemp("any")
        nested = {f"{chr(97 + len(name) % 3)}/{name}": data for name, data in files.items()}
        found = [contents(packed(folder / f"data.{kind}", nested)) for kind in ("zip", "tar.gz")]
        assert found == [nested, nested]
        assert list(found[0]) == list(found[1])


class TestOneFile:
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_opened_by_its_name_as_a_stream(self, tmp_path: Path, kind: str) -> None:
        path = packed(tmp_path / f"glove.{kind}", {"a.50d.txt": b"the 1\nof 2\n", "a.100d.txt": b"the 3\n"})
        with opened(path, "a.50d.txt") as lines:
            assert list(lines) == [b"the 1\n", b"of 2\n"]

    def test_is_found_by_a_pattern(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "jena.csv.zip", {"jena.csv": b"1\n", "__MACOSX/._jena.csv": b"x"})
        with opened(path) as file:
            assert file.read() == b"1\n"
        with opened(path, "*.csv") as file:
            assert file.read(1) == b"1"

    def test_must_be_one(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "data.zip")
        with pytest.raises(DataError, match=r"data\.zip holds 2 files `\*.txt`") as caught, opened(path, "*.txt"):
            pass
        assert "received: a/y.txt, a-b/x.txt" in str(caught.value)
        with pytest.raises(DataError, match=r"data\.zip holds no files `top\.cvs`") as caught, opened(path, "top.cvs"):
            pass
        assert "did you mean `top.csv`" in str(caught.value)

    def test_is_damaged_where_it_is_read(self, tmp_path: Path) -> None:
        noise = os.urandom(300)
        path = packed(tmp_path / "data.zip", {"a": b"first" * 99, "b": noise})
        data = bytearray(path.read_bytes())
        data[data.index(noise[9:99])] ^= 1
        path.write_bytes(data)
        with opened(path, "a") as file:
            assert file.read() == b"first" * 99
        with pytest.raises(DataError, match="member 'b'"), opened(path, "b") as file:
            file.read()


class TestUnpacking:
    @pytest.mark.parametrize("kind", KINDS)
    def test_gives_the_folder(self, tmp_path: Path, kind: str) -> None:
        extract(packed(tmp_path / f"data.{kind}"), tmp_path / "out")
        assert below(tmp_path / "out") == FILES
        assert {path.name for path in tmp_path.iterdir()} - {"home"} == {f"data.{kind}", "out"}

    def test_starts_anew_after_an_attempt_that_was_killed(self, tmp_path: Path) -> None:
        (tmp_path / ".out.part").mkdir()
        (tmp_path / ".out.part" / "half").write_text("x")
        extract(packed(tmp_path / "data.zip"), tmp_path / "out")
        assert below(tmp_path / "out") == FILES

    def test_shows_how_far_it_is(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        extract(packed(tmp_path / "data.zip"), tmp_path / "out")
        assert "unpack data.zip: 4 of 4  files" in caplog.text

    @pytest.mark.parametrize(
        ("name", "short"),
        [("a.tar.gz", "a"), ("a.tgz", "a"), ("b.c.zip", "b.c"), ("x-ubyte.gz", "x-ubyte"), ("plain", "plain")],
    )
    def test_goes_beside_the_archive(self, name: str, short: str) -> None:
        assert stem(name) == short


class TestPaths:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("../evil", "leads out of the folder"),
            ("a/../../evil", "leads out of the folder"),
            ("a/../b", "leads out of the folder"),
            ("/etc/evil", "is absolute"),
            ("C:\\evil", "is absolute"),
        ],
    )
    def test_that_lead_out_of_the_folder_are_refused(self, tmp_path: Path, kind: str, name: str, reason: str) -> None:
        said = refusal(packed(tmp_path / f"data.{kind}", {"good": b"", name: b"x"}))
        assert reason in said
        assert "evil" in said or "a/../b" in said

    def test_that_lead_out_by_other_separators_are_refused(self, tmp_path: Path) -> None:
        assert "leads out" in refusal(packed(tmp_path / "data.zip", {"..\\evil": b"x"}))

    @pytest.mark.parametrize("kind", ["zip", "tar"])
    def test_of_folders_are_checked_too(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"data.{kind}"
        if kind == "zip":
            zipped(path, "../evil/")
        else:
            packed(path, {}, described("../evil", type=tarfile.DIRTYPE))
        assert "leads out of the folder" in refusal(path)

    @pytest.mark.parametrize("kind", ["tar", "zip"])
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_that_become_the_same_are_refused(self, tmp_path: Path, kind: str) -> None:
        assert "two members of this name" in refusal(packed(tmp_path / f"data.{kind}", {"a/b": b"1", "./a//b": b"2"}))

    def test_of_a_file_and_a_folder_are_refused(self, tmp_path: Path) -> None:
        assert "member 'a': it is a file as well as a folder" in refusal(
            packed(tmp_path / "data.zip", {"a": b"1", "a/b": b"2"})
        )

    def test_that_differ_in_case_are_two(self, tmp_path: Path) -> None:
        assert contents(packed(tmp_path / "data.zip", {"A": b"1", "a": b"2"})) == {"A": b"1", "a": b"2"}


class TestLinks:
    def link(self, name: str, to: str, *, hard: bool = False) -> tarfile.TarInfo:
        return described(name, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=to)

    def test_within_the_archive_are_copies(self, tmp_path: Path) -> None:
        links = [
            self.link("a/soft", "../top.csv"),
            self.link("hard", "top.csv", hard=True),
            self.link("chain", "a/soft"),
        ]
        path = packed(tmp_path / "data.tar", {"top.csv": b"1"}, *links)
        assert contents(path) == {"top.csv": b"1", "a/soft": b"1", "hard": b"1", "chain": b"1"}
        extract(path, tmp_path / "out")
        (tmp_path / "out" / "hard").write_bytes(b"2")
        assert (tmp_path / "out" / "top.csv").read_bytes() == b"1"
        assert not any(found.is_symlink() for found in (tmp_path / "out").rglob("*"))

    def test_to_a_folder_of_the_archive_are_left_out(self, tmp_path: Path) -> None:
        assert contents(packed(tmp_path / "data.tar", {"a/b": b"1"}, self.link("latest", "a"))) == {"a/b": b"1"}

    @pytest.mark.parametrize("hard", [True, False])
    @pytest.mark.parametrize("to", ["../evil", "/etc/passwd", "a/../../../evil"])
    @pytest.mark.parametrize("kind", ["tar", "tar.gz"])
    def test_out_of_the_folder_are_refused(self, tmp_path: Path, kind: str, to: str, hard: bool) -> None:
        said = refusal(packed(tmp_path / f"data.{kind}", FILES, self.link("link", to, hard=hard)))
        assert "member 'link': it is a link out of the folder" in said

    @pytest.mark.parametrize("to", ["nothing", "link"])
    def test_to_nothing_or_to_themselves_are_refused(self, tmp_path: Path, to: str) -> None:
        assert "which is no file of the archive" in refusal(packed(tmp_path / "data.tar", FILES, self.link("link", to)))

    def test_cannot_be_written_through(self, tmp_path: Path) -> None:
        """A link to a folder, and then a file "in" it."""
        path = tmp_path / "data.tar"
        packed(path, {}, self.link("out", "../elsewhere"), described("out/evil"))
        assert "link out of the folder" in refusal(path)
        packed(path, {"a/b": b""}, self.link("in", "a"), described("in/evil"))
        assert "it is a file as well as a folder" in refusal(path)

    def test_in_a_zip_are_links_too(self, tmp_path: Path) -> None:
        mode = (stat.S_IFLNK | 0o777) << 16
        assert "link out of the folder, to '../evil'" in refusal(
            zipped(tmp_path / "data.zip", "link", b"../evil", external_attr=mode)
        )

    @pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
    def test_and_devices_are_refused(self, tmp_path: Path, kind: bytes) -> None:
        assert "member 'dev': it is no file but a device or a pipe" in refusal(
            packed(tmp_path / "data.tar", FILES, described("dev", type=kind))
        )

    def test_and_pipes_in_a_zip_are_refused(self, tmp_path: Path) -> None:
        mode = (stat.S_IFIFO | 0o777) << 16
        assert "a device or a pipe" in refusal(zipped(tmp_path / "data.zip", "pipe", external_attr=mode))


class TestBounds:
    TIGHT = Limits(unpacked=50_000, ratio=10, exempt=5_000)

    @pytest.mark.parametrize("kind", [*KINDS, "gz"])
    def test_an_archive_that_swells_is_refused(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"data.{kind}"
        if kind == "gz":
            path.write_bytes(gzip.compress(bytes(2_000_000)))
        else:
            packed(path, {"zeros": bytes(2_000_000)})
        assert "it unpacks to more than" in refusal(path, self.TIGHT)

    def test_a_packed_tar_that_swells_does_not_fill_the_disk_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = []

        class Spool(io.BytesIO):
            def write(self, data: Any) -> int:
                written.append(len(data))
                return super().write(data)

        monkeypatch.setattr(archives.tempfile, "TemporaryFile", lambda dir: Spool())
        monkeypatch.setattr(archives, "CHUNK", 1000)
        with pytest.raises(DataError, match="it unpacks to more than"):
            contents(packed(tmp_path / "data.tar.gz", {"zeros": bytes(2_000_000)}), self.TIGHT)
        assert 0 < sum(written) <= 50_000

    def test_small_ones_may_swell_as_they_like(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "data.zip", {"zeros": bytes(4_000)})
        assert len(contents(path, self.TIGHT)["zeros"]) == 4_000

    def test_large_ones_are_bounded_altogether(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "data.zip", {name: os.urandom(20_000) for name in "abc"})
        assert "more than 50,000 bytes" in refusal(path, self.TIGHT)
        assert "see headrace.getting.archives.Limits" in refusal(path, self.TIGHT)

    def test_members_that_overlap_are_counted_one_by_one(self, tmp_path: Path) -> None:
        """As in the bombs whose members all share one packed block."""
        path = packed(tmp_path / "data.zip", {name: os.urandom(3_000) for name in "abcdefghij"})
        data = bytearray(path.read_bytes())
        directory = data.index(b"PK\x01\x02")
        while data[directory : directory + 4] == b"PK\x01\x02":
            data[directory + 42 : directory + 46] = bytes(4)
            directory += 46 + data[directory + 28]
        path.write_bytes(data)
        assert "unpacks to more than" in refusal(path, Limits(unpacked=29_000, exempt=29_000))

    @pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
    def test_the_number_of_members_is_bounded(self, tmp_path: Path, kind: str) -> None:
        path = packed(tmp_path / f"data.{kind}", {str(k): b"" for k in range(11)})
        assert "it holds more than 10 files" in refusal(path, Limits(members=10))
        assert len(contents(path, Limits(members=11))) == 11

    def test_copies_that_links_make_count(self, tmp_path: Path) -> None:
        links = [described(f"link{k}", type=tarfile.LNKTYPE, linkname="file") for k in range(9)]
        path = packed(tmp_path / "data.tar", {"file": os.urandom(10_000)}, *links)
        assert "unpacks to more than 50,000 bytes" in refusal(path, self.TIGHT)

    @pytest.mark.parametrize(("declared", "said"), [(10, "it is damaged"), (5000, "instead of the 5,000")])
    def test_a_header_that_lies_about_the_size_is_found_out(self, tmp_path: Path, declared: int, said: str) -> None:
        path = packed(tmp_path / "data.zip", {"a": b"x" * 1000})
        data = path.read_bytes()
        path.write_bytes(data.replace((1000).to_bytes(4, "little"), declared.to_bytes(4, "little")))
        assert said in refusal(path)
        assert "member 'a'" in refusal(path)


class TestDamage:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.995])
    def test_a_cut_off_archive_is_refused(self, tmp_path: Path, kind: str, share: float) -> None:
        path = packed(tmp_path / f"data.{kind}", {"a": os.urandom(30_000), "b": os.urandom(30_000)})
        data = path.read_bytes()
        if kind == "tar":
            data = data.rstrip(b"\0")
        path.write_bytes(data[: int(len(data) * share)])
        assert "it is damaged or cut off" in refusal(path)

    def test_a_tar_that_ends_between_two_members_is_refused(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "data.tar", {"a": b"1" * 512, "b": b"2" * 512})
        path.write_bytes(path.read_bytes()[:1024])
        assert "the end of the file at byte 1,024, after 1 files" in refusal(path)

    def test_a_damaged_header_of_a_tar_does_not_end_it_silently(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "data.tar", {"a": b"1" * 512, "b": b"2" * 512})
        data = bytearray(path.read_bytes())
        data[1024 + 5] ^= 1
        path.write_bytes(data)
        assert "a damaged header at byte 1,024" in refusal(path)

    @pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz", "gz"])
    def test_a_flipped_bit_is_found(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"data.{kind}"
        if kind == "gz":
            path.write_bytes(gzip.compress(os.urandom(30_000)))
        else:
            packed(path, {"a": os.urandom(30_000)})
        data = bytearray(path.read_bytes())
        data[15_000] ^= 4
        path.write_bytes(data)
        assert "it is damaged" in refusal(path)

    @pytest.mark.parametrize("cut", [1, 4, 8, 200])
    def test_a_cut_off_gz_is_refused(self, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "labels.gz"
        path.write_bytes(gzip.compress(os.urandom(3000))[:-cut])
        assert "labels.gz, member 'labels': it is damaged or cut off" in refusal(path)

    def test_an_encrypted_zip_is_refused(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "data.zip", {"secret": b"x" * 100})
        data = bytearray(path.read_bytes())
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(data)
        assert "member 'secret': it is encrypted" in refusal(path)

    def test_a_method_that_nobody_knows_is_named(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "data.zip", {"a": b"x" * 100})
        data = bytearray(path.read_bytes())
        data[8] = data[data.index(b"PK\x01\x02") + 10] = 97
        path.write_bytes(data)
        assert "it is packed in a way that can't be read" in refusal(path)

    @pytest.mark.parametrize(
        ("data", "received"),
        [(b"", "an empty file"), (b"<!doctype html>", "a file that begins with b'<!doctype html>")],
    )
    def test_what_is_no_archive_is_told_so(self, tmp_path: Path, data: bytes, received: str) -> None:
        path = tmp_path / "data.zip"
        path.write_bytes(data)
        said = refusal(path)
        assert "data.zip is no archive that can be read" in said
        assert f"received: {received}" in said

    def test_what_is_missing_is_told_so(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="can't be read"):
            contents(tmp_path / "data.zip")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("flowers/flower_photos.tgz", 400, "flower_photos/daisy/"),
        ("bike_sharing/Bike-Sharing-Dataset.zip", 3, "Readme.txt"),
        ("california_housing/housing.tgz", 1, "housing.csv"),
        ("oxford_iiit_pet/annotations.tar.gz", None, "annotations/"),
    ],
)
def test_real_archives_are_read(mirror: Path, name: str, count: int | None, first: str) -> None:
    found = contents(mirror / name)
    assert count in (None, len(found))
    assert next(iter(found)).startswith(first)
    assert all(found.values())
