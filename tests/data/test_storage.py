"""The same images come out of a folder, a zip, and URLs of both, in this process and in others."""

import multiprocessing
import pickle
import re
import threading
import time
import unicodedata
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import fsspec
import numpy as np
import pytest

from aggmask.data import byte_ranges
from aggmask.data.storage import open_storage
from aggmask.errors import UserError

rng = np.random.default_rng(0)
IMAGES = {
    "000000000139.jpg": rng.bytes(5000),
    "a b/ü%20#1?.png": rng.bytes(70),
    "a b/[x]*.jpg": b"text " * 1000,  # packs well
    "empty.jpg": b"",
}
LOCAL = ["folder", "stored zip", "deflated zip", "zip with a top folder"]
REMOTE = ["memory folder", "memory zip", "http folder", "http zip"]


class _RangeHandler(SimpleHTTPRequestHandler):
    """Serves a folder with byte ranges; counts requests, how many run at once, and fails when told."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        state = self.server.state
        with state["lock"]:
            state["requests"] += 1
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
            failing, state["fail"] = state["fail"] > 0, max(state["fail"] - 1, 0)
        time.sleep(state["delay"])
        try:
            self.send_error(503) if failing else self._send(self.server.root / unquote(self.path.partition("?")[0])[1:])
        finally:
            with state["lock"]:
                state["now"] -= 1

    def _send(self, path):
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.server.state["ranges"]:
            start, end = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
            data = data[start : end + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(tmp_path):
    """An HTTP server of tmp_path / "www" on loopback; `state` steers and watches it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_RangeHandler, directory=str(tmp_path / "www")))
    server.root = tmp_path / "www"
    server.state = {"lock": threading.Lock(), "ranges": True}
    server.state.update(dict.fromkeys(("requests", "now", "most", "fail", "delay"), 0))
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def write_folder(root, images=IMAGES):
    for name, data in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path, images=IMAGES, method=zipfile.ZIP_STORED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in images.items():
            archive.writestr(name, data)
    return path


def to_memory(path, url):
    with fsspec.open(url, "wb") as stream:
        stream.write(path.read_bytes())
    return url


@pytest.fixture(params=LOCAL + REMOTE)
def storage(request, tmp_path, server):
    top = {f"val2017/{name}": data for name, data in IMAGES.items()}
    www = server.root
    match request.param:
        case "folder":
            place = write_folder(tmp_path / "images")
        case "stored zip":
            place = write_zip(tmp_path / "val.zip")
        case "deflated zip":
            place = write_zip(tmp_path / "val.zip", method=zipfile.ZIP_DEFLATED)
        case "zip with a top folder":
            place = write_zip(tmp_path / "val.zip", top)
        case "memory folder":
            place = "memory://images"
            for name in IMAGES:
                to_memory(write_folder(tmp_path / "images") / name, f"{place}/{name}")
        case "memory zip":
            place = to_memory(write_zip(tmp_path / "val.zip", top), "memory://val.zip")
        case "http folder":
            write_folder(www / "images")
            place = f"{server.url}/images/"
        case "http zip":
            write_zip(www / "val.zip", top)
            place = f"{server.url}/val.zip?token=1"
    return open_storage(place)


def test_read(storage):
    assert {name: storage.read(name) for name in IMAGES} == IMAGES


def test_read_many_keeps_order_and_repeats(storage):
    names = [*reversed(IMAGES), *IMAGES]
    assert storage.read_many(names) == [IMAGES[name] for name in names]
    assert storage.read_many([]) == []


def test_contains(storage):
    assert all(name in storage for name in IMAGES)
    assert "nothing.jpg" not in storage
    assert "a b" not in storage or storage.place.startswith("memory")  # a folder of a remote store


def test_missing_image_is_named(storage):
    for names in (["nothing.jpg"], ["000000000139.jpg", "nothing.jpg"]):
        with pytest.raises(UserError, match=r"nothing\.jpg") as caught:
            storage.read_many(names)
        assert storage.place in str(caught.value)
    with pytest.raises(UserError):
        storage.read("000000000139.jpg/x.jpg")


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "a/../../x", "..", "C:\\x.jpg", "..\\x.jpg", "x\0y", ""])
def test_names_that_lead_out(storage, name):
    for ask in (storage.read, storage.__contains__, lambda name: storage.read_many([name])):
        with pytest.raises(UserError, match="leads out"):
            ask(name)


def test_names_are_read_in_plainest_form(storage):
    assert storage.read("./a b//../000000000139.jpg") == IMAGES["000000000139.jpg"]


def test_pickled(storage):
    storage.read("empty.jpg")  # connected
    again = pickle.loads(pickle.dumps(storage))
    assert again.place == storage.place
    assert again.read_many(list(IMAGES)) == list(IMAGES.values())


def _read_all(storage, results):
    results.put({name: storage.read(name) for name in IMAGES})


def test_forked(storage):
    storage.read("empty.jpg")  # connected before the fork
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_read_all, args=(storage, results), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get(timeout=30) for _ in processes] == [IMAGES, IMAGES]
    assert storage.read("000000000139.jpg") == IMAGES["000000000139.jpg"]


def test_forked_zip_opens_its_own_descriptor(tmp_path):
    storage = open_storage(write_zip(tmp_path / "val.zip"))
    mine = storage._file.connection()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    context.Process(target=lambda: results.put(storage._file.connection() is mine)).start()
    assert results.get(timeout=30) is False
    assert storage._file.connection() is mine


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_several_requests_in_flight(server, kind):
    images = {f"{i}.jpg": bytes([i]) * 100 for i in range(40)}
    write_folder(server.root / "images", images)
    write_zip(server.root / "images.zip", images)
    storage = open_storage(f"{server.url}/images" + (".zip" if kind == "zip" else ""))
    server.state.update(delay=0.05, most=0, requests=0)
    assert storage.read_many(list(images)) == list(images.values())
    assert server.state["requests"] == 40
    assert 4 <= server.state["most"] <= byte_ranges.IN_FLIGHT


def test_opening_a_remote_zip_asks_for_its_end_only(server):
    write_zip(server.root / "val.zip", {f"{i}.jpg": rng.bytes(50_000) for i in range(40)})
    storage = open_storage(f"{server.url}/val.zip")
    assert server.state["requests"] <= 6
    server.state["requests"] = 0
    assert len(storage.read("7.jpg")) == 50_000
    assert server.state["requests"] == 1


def test_hiccups_are_retried(server, monkeypatch):
    monkeypatch.setattr(byte_ranges.time, "sleep", lambda _: None)
    write_folder(server.root)
    storage = open_storage(server.url)
    server.state["fail"] = 2
    assert storage.read("000000000139.jpg") == IMAGES["000000000139.jpg"]
    server.state["fail"] = 3
    with pytest.raises(UserError, match="503"):
        storage.read("000000000139.jpg")


def test_server_without_byte_ranges(server):
    write_zip(server.root / "val.zip")
    storage = open_storage(f"{server.url}/val.zip")
    server.state["ranges"] = False
    with pytest.raises(UserError, match="byte range"):
        storage.read("000000000139.jpg")
    with pytest.raises(UserError, match=r"val\.zip"):
        open_storage(f"{server.url}/val.zip")


def test_top_folder_counts_only_when_it_is_the_only_one(tmp_path):
    two = open_storage(write_zip(tmp_path / "two.zip", {"a/1.jpg": b"1", "b/2.jpg": b"2"}))
    assert ("a/1.jpg" in two, "1.jpg" in two) == (True, False)
    loose = open_storage(write_zip(tmp_path / "loose.zip", {"a/1.jpg": b"1", "2.jpg": b"2"}))
    assert ("2.jpg" in loose, "1.jpg" in loose) == (True, False)
    with pytest.raises(UserError, match=r"There is no image '1\.jpg' in .*, but 'a/1\.jpg'.*belong together"):
        loose.read("1.jpg")
    with pytest.raises(UserError, match=r"There is no image '3\.jpg' in .*loose\.zip\. Check that"):
        loose.read("3.jpg")
    mac = open_storage(write_zip(tmp_path / "mac.zip", {"a/": b"", "a/1.jpg": b"1", "__MACOSX/a/._1.jpg": b"junk"}))
    assert (mac.read("1.jpg"), mac.read("a/1.jpg")) == (b"1", b"1")


@pytest.mark.parametrize("stray", [(), (".DS_Store", "README", "data/labels.json", "._1.jpg")])
@pytest.mark.parametrize("folder", ["data", "data/mine/pictures"])
def test_names_in_the_folder_of_all_pictures(tmp_path, folder, stray):
    images = {f"{folder}/1.jpg": b"1", f"{folder}/sub/2.PNG": b"2", f"{folder}/sub/ü.jpg": b"3"}
    storage = open_storage(write_zip(tmp_path / "deep.zip", {**dict.fromkeys(stray, b""), **images}))
    parts = folder.split("/")
    for k in range(len(parts) + 1):
        top = "/".join([*parts[k:], ""]) if parts[k:] else ""
        names = [f"{top}1.jpg", f"{top}sub/2.PNG", f"{top}sub\\{unicodedata.normalize('NFD', 'ü')}.jpg"]
        assert storage.read_many(names) == [b"1", b"2", b"3"]
    assert "2.PNG" not in storage
    assert storage.near("1.JPG") == [f"{folder}/1.jpg"]


def test_a_name_in_two_folders_around_the_pictures_is_none_unless_it_is_whole(tmp_path):
    images = {"a/b/1.jpg": b"1", "a/b/b/1.jpg": b"2", "a/b/b/3.jpg": b"3"}
    storage = open_storage(write_zip(tmp_path / "twice.zip", images))
    assert storage.read_many(["a/b/1.jpg", "a/b/b/1.jpg", "1.jpg"]) == [b"1", b"2", b"1"]
    assert storage.read("b/3.jpg") == b"3"
    assert ("b/1.jpg" in storage, "3.jpg" in storage) == (False, False)
    assert storage.near("b/1.jpg") == ["a/b/1.jpg", "a/b/b/1.jpg"]


def test_names_without_endings_are_pictures_where_there_are_no_others(tmp_path):
    storage = open_storage(write_zip(tmp_path / "plain.zip", {"a/b/1": b"1", "a/b/2": b"2"}))
    assert storage.read_many(["1", "b/2"]) == [b"1", b"2"]


def test_utf8_names_not_marked_as_such(tmp_path):
    path = write_zip(tmp_path / "val.zip", {"straße.jpg": b"1"})
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 7), (b"PK\1\2", 9)):  # clear bit 11 in both headers
        data[data.index(signature) + flags] &= ~0x08
    path.write_bytes(data)
    assert zipfile.ZipFile(path).namelist() != ["straße.jpg"]
    assert open_storage(path).read("straße.jpg") == b"1"


def test_zip_with_a_prefix_comment_and_extra_fields(tmp_path):
    path = tmp_path / "val.zip"
    path.write_bytes(b"#!/bin/sh\n" * 10)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"x" * 300
        for name, data in IMAGES.items():
            with archive.open(name, "w", force_zip64=True) as member:  # an extra field in the local header only
                member.write(data)
    storage = open_storage(path)
    assert storage.read_many(list(IMAGES)) == list(IMAGES.values())


def test_damage_is_told(tmp_path):
    path = write_zip(tmp_path / "val.zip")
    storage = open_storage(path)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"000000000139\.jpg.*damaged"):
        storage.read("000000000139.jpg")
    path.write_bytes(data[:-50])
    with pytest.raises(UserError, match=r"val\.zip"):
        open_storage(path)


def test_other_packing_is_told(tmp_path):
    storage = open_storage(write_zip(tmp_path / "val.zip", method=zipfile.ZIP_LZMA))
    with pytest.raises(UserError, match="zip -0"):
        storage.read("000000000139.jpg")


def test_table_is_small(tmp_path):
    names = {f"train2017/{i:012d}.jpg": b"" for i in range(2000)}
    storage = open_storage(write_zip(tmp_path / "train.zip", names))
    assert len(pickle.dumps(storage)) / 2000 < 50  # bytes per image: 6 MB at most for COCO's 118k


def test_missing_places(tmp_path, server):
    with pytest.raises(UserError, match=r"val2017.*train2017"):
        open_storage(tmp_path / "val2017")
    write_zip(tmp_path / "val2017.zip")
    with pytest.raises(UserError, match=r"There is .*val2017\.zip"):
        open_storage(tmp_path / "val2017")
    (tmp_path / "val.tar").write_bytes(b"tar")
    with pytest.raises(UserError, match=r"val\.tar"):
        open_storage(tmp_path / "val.tar")
    with pytest.raises(UserError, match=r"nothing\.zip"):
        open_storage(f"{server.url}/nothing.zip")
    with pytest.raises(UserError, match="nosuch"):
        open_storage("nosuch://bucket/images")


def test_links_out_of_the_folder_are_refused_unless_allowed(tmp_path):
    inside, secret = tmp_path / "images", tmp_path / "secret"
    inside.mkdir()
    secret.write_bytes(b"secret")
    (inside / "a.jpg").write_bytes(b"a")
    (inside / "out.jpg").symlink_to(secret)
    (inside / "folder").symlink_to(tmp_path, target_is_directory=True)
    (inside / "in.jpg").symlink_to(inside / "a.jpg")
    (tmp_path / "link").symlink_to(inside, target_is_directory=True)  # the folder itself may be a link
    for place in (inside, tmp_path / "link"):
        storage = open_storage(place)
        assert storage.read_many(["a.jpg", "in.jpg", "folder/images/a.jpg"]) == [b"a"] * 3
        for name in ("out.jpg", "folder/secret", "../secret", str(secret)):
            with pytest.raises(UserError, match=r"leads out of .*data\.allow_outside=true"):
                storage.read(name)
            with pytest.raises(UserError, match="leads out of"):
                name in storage  # noqa: B015
            allowed = open_storage(place, allow_outside=True)
            assert name in allowed
            assert allowed.read(name) == b"secret"
    with pytest.raises(UserError, match="leads out of"):
        open_storage(inside, allow_outside=True).read("a\0.jpg")
    with pytest.raises(UserError, match="There is no image"):
        open_storage(inside, allow_outside=True).read("../secret.jpg")


@pytest.fixture(params=["folder", "zip", "zip with a top folder"])
def imgs(request, tmp_path):
    """Images in a place called imgs."""
    images = {"B.JPG": b"1", "sub/a.jpg": b"2", unicodedata.normalize("NFD", "ü.jpg"): b"3", "c.png": b"", "C.png": b""}
    if request.param == "folder":
        return open_storage(write_folder(tmp_path / "imgs", images))
    top = "imgs/" if "top" in request.param else ""
    return open_storage(write_zip(tmp_path / "imgs.zip", {top + name: data for name, data in images.items()}))


def test_the_same_name_spelled_otherwise_is_read(imgs):
    for name, data in ((r"sub\a.jpg", b"2"), (unicodedata.normalize("NFC", "ü.jpg"), b"3")):
        assert name in imgs
        assert imgs.read_many([name]) == [data]


@pytest.mark.parametrize("name", ["b.jpg", r"imgs\b.jpg", "IMGS/B.JPG"])
def test_a_missing_image_is_told_with_the_only_one_of_nearly_that_name(imgs, name):
    assert name not in imgs
    assert len(imgs.near(f"{Path(imgs.place).parent.name}/imgs/b.jpg")) == 1
    with pytest.raises(UserError, match=r"There is no image .*, but '(imgs/)?B\.JPG'.*aggmask\.doctor"):
        imgs.read(name)
    assert len(pickle.dumps(imgs)) < 3000


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "/".join(["x" * 100] * 60)])
def test_a_name_longer_than_any_file_has_is_missing(imgs, name):
    for spelled in (name, name.replace("/", "\\")):
        assert spelled not in imgs
        with pytest.raises(UserError, match="There is no image"):
            imgs.read(spelled)


def test_a_name_too_long_in_one_spelling_is_read_in_another(tmp_path):
    name = "ü" * 120
    storage = open_storage(write_folder(tmp_path / "imgs", {name: b"1"}))
    apart = unicodedata.normalize("NFD", name)
    assert apart in storage
    assert storage.read(apart) == b"1"


@pytest.mark.parametrize("name", ["c.PNG", "d.png", "sub", r"sub\b.jpg"])
def test_a_missing_image_is_told_alone_where_none_or_several_are_near(imgs, name):
    with pytest.raises(UserError, match="Check that annotations and images belong together"):
        imgs.read(name)
