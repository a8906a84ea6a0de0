"""What an agent does, on real pages: forms, frames, shadow roots, dialogs, files, tabs."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from tests.browserd.daemon import Daemon


def reference(daemon: Daemon, shown: str) -> str:
    """The reference that the snapshot gives to what it shows so."""
    text = daemon.do("snapshot")["snapshot"]
    found = re.search(re.escape(shown) + r".*\[ref=(e\d+)\]", text)
    assert found, text
    return f"@{found[1]}"


def test_a_form_is_filled_and_sent(daemon: Daemon, pages: str) -> None:
    opened = daemon.do("open", f"{pages}/form.html")
    assert opened == {"url": f"{pages}/form.html", "title": "Form", "status": 200}
    daemon.do("fill", "#name", "old")
    daemon.do("fill", "#name", "Zoë Ångström 漢字 👍")
    daemon.do("type", "#notes", "a\nb")
    daemon.do("fill", "#day", "2026-02-03")
    assert daemon.do("check", "#agree") == {"checked": True}
    daemon.do("uncheck", "#agree")
    daemon.do("check", "#agree")
    assert daemon.do("select", "#colour", "Green") == {"selected": ["g"]}
    daemon.do("fill", "#rich", "new")
    assert daemon.do("get", "text", "#rich") == {"value": "new"}
    daemon.do("fill", "#rich", "")
    assert daemon.eval("rich.innerText.trim()") == ""
    assert daemon.do("click", "text=Send")["url"].startswith(f"{pages}/echo?")
    said = daemon.do("get", "text", "pre")["value"]
    wanted = {
        "name": "Zoë Ångström 漢字 👍",
        "notes": "a\r\nb",
        "day": "2026-02-03",
        "agree": "on",
        "colour": "g",
    }
    assert said == repr(wanted)
    assert daemon.do("back")["title"] == "Form"
    assert daemon.do("forward")["title"] == "Echo"
    assert daemon.do("reload")["title"] == "Echo"


def test_keys(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/form.html")
    daemon.do("fill", "#name", "one two")
    daemon.do("press", "Control+a")
    daemon.do("press", "X")
    assert daemon.do("get", "value", "#name") == {"value": "X"}
    for key in ("Home", "Shift+ArrowRight", "+", "é", "ArrowLeft", "Backspace"):
        daemon.do("press", key)
    assert daemon.do("get", "value", "#name") == {"value": "é"}
    daemon.do("press", "Tab")
    assert daemon.eval("document.activeElement.id") == "notes"
    assert daemon.fails("press", "Hyper+a")[0] == "usage"
    assert daemon.fails("press", "Escap")[0] == "usage"
    daemon.do("press", "Shift+Tab")
    daemon.do("press", "Enter")
    assert daemon.do("get", "title") == {"value": "Echo"}


def test_a_snapshot_names_what_commands_accept(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/form.html")
    daemon.do("fill", "#name", "me")
    all_ = daemon.do("snapshot")
    assert '- textbox "Name" [ref=' in all_["snapshot"]
    assert re.search(r'textbox "Name".*: me$', all_["snapshot"], re.MULTILINE)
    assert "hidden" not in all_["snapshot"].lower()
    daemon.do("fill", reference(daemon, 'textbox "Name"'), "you")
    daemon.do("check", reference(daemon, 'checkbox "I agree"'))
    assert re.search(r'checkbox "I agree" \[checked\]', daemon.do("snapshot", "-i")["snapshot"])
    old = reference(daemon, 'button "Send"')
    daemon.do("click", old)
    assert "'name': 'you'" in daemon.do("get", "text", "pre")["value"]
    code, text = daemon.fails("click", old)
    assert code == "not_found"
    assert "new snapshot" in text


def test_frames_of_the_same_and_of_another_process(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/frames.html")
    daemon.do("wait", "text=Inside other")
    text = daemon.do("snapshot")["snapshot"]
    assert text.index("Outside") < text.index('button "Inside same"') < text.index('button "Inside other"')
    for who in ("same", "other"):
        daemon.do("click", reference(daemon, f'button "Inside {who}"'))
        daemon.do("wait", "--text", f"clicked {who}")
        daemon.do("fill", f"#input-{who}", f"to {who}")
        daemon.do("type", f"#input-{who}", "!")
        assert daemon.do("get", "value", f"#input-{who}") == {"value": f"to {who}!"}
        daemon.do("click", f"#button-{who}")


def test_open_shadow_roots(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/shadow.html")
    daemon.do("fill", "input.deep", "7")
    daemon.do("click", "text=Pay")
    assert daemon.do("get", "title") == {"value": "paid 7"}
    daemon.do("fill", reference(daemon, 'textbox "Deep"'), "8")
    daemon.do("click", reference(daemon, 'button "Pay"'))
    assert daemon.do("get", "title") == {"value": "paid 8"}


def test_what_is_not_ready_is_waited_for_and_then_said(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/form.html")
    for target, code, reason in (
        ("#nowhere", "not_found", "no element matches"),
        ("#hidden", "not_ready", "not visible"),
        ("#later", "not_ready", "disabled"),
        ("#covered", "not_ready", "covered by <div.cover>"),
    ):
        found = daemon.fails("click", target, timeout=0.5)
        assert found[0] == code
        assert reason in found[1]
    assert "read-only" in daemon.fails("fill", "#fixed", "x", timeout=0.5)[1]
    assert daemon.fails("click", "p[[", timeout=5)[0] == "usage"
    daemon.eval("enable(300)")
    daemon.do("click", "#later", timeout=10)
    assert daemon.do("get", "title") == {"value": "clicked later"}


def test_dialogs_wait_for_an_answer(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/dialogs.html")
    assert daemon.do("click", "#alert")["dialog"] == {"kind": "alert", "message": "Attention"}
    assert daemon.status()["dialog"]["kind"] == "alert"
    code, text = daemon.fails("get", "text", "#alert")
    assert code == "dialog"
    assert "Attention" in text
    daemon.do("dialog", "accept")
    daemon.until("document.title", "after alert")
    daemon.do("click", "#confirm")
    daemon.do("dialog", "dismiss")
    daemon.until("document.title", "false")
    daemon.do("click", "#prompt")
    daemon.do("dialog", "accept", "Ada")
    daemon.until("document.title", "Ada")
    assert daemon.do("eval", "alert('from a script')")["dialog"]["message"] == "from a script"
    daemon.do("dialog", "accept")
    assert daemon.fails("dialog", "accept")[0] == "not_found"


def test_scripts(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/form.html")
    assert daemon.eval("({a: [1, 'é', null]})") == {"a": [1, "é", None]}
    assert daemon.eval("await new Promise((done) => setTimeout(() => done(6 * 7), 10))") == 42
    assert daemon.fails("eval", "nothing.here") == ("script", "ReferenceError: nothing is not defined")
    assert daemon.fails("eval", "for (;;);", timeout=1)[0] == "timeout"
    assert daemon.eval("1 + 1") == 2  # the endless script was ended


def test_pictures_and_pdf(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/form.html")
    for command, start in ((("screenshot",), b"\x89PNG"), (("screenshot", "a.jpg", "--full"), b"\xff\xd8")):
        assert base64.b64decode(daemon.do(*command)["base64"]).startswith(start)
    assert base64.b64decode(daemon.do("pdf", "x.pdf")["base64"]).startswith(b"%PDF")


def test_cookies(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/cookie")
    assert [each["value"] for each in daemon.do("cookies")["cookies"]] == ["oat"]
    set_ = daemon.do("cookies", "set", "size", "large")["cookies"]
    assert {each["name"] for each in set_} == {"flavour", "size"}
    assert daemon.eval("document.cookie.split('; ').sort()") == ["flavour=oat", "size=large"]
    assert daemon.do("cookies", "clear") == {"cookies": []}


def test_an_upload(daemon: Daemon, pages: str, folder: Path) -> None:
    (folder / "up.txt").write_bytes(b"12345")
    daemon.do("open", f"{pages}/form.html")
    daemon.do("upload", "#file", str(folder / "up.txt"))
    daemon.until("document.title", "up.txt 5")
    code, text = daemon.fails("upload", "#file", str(folder / "nowhere.txt"))
    assert code == "not_found"
    assert "nowhere.txt" in text
    assert daemon.fails("upload", "#name", str(folder / "up.txt"))[0] == "not_ready"


def test_tabs(daemon: Daemon, pages: str) -> None:
    daemon.do("open", f"{pages}/dialogs.html")
    daemon.do("click", "#tab")
    daemon.do("wait", "--url", "form.html")
    tabs = daemon.do("tabs")["tabs"]
    assert [each["active"] for each in tabs] == [False, True]
    assert daemon.do("tab", "0")["tabs"][0]["active"]
    assert daemon.do("get", "title") == {"value": "Dialogs"}
    assert daemon.fails("tab", "7")[0] == "not_found"
    daemon.do("tab", "new", f"{pages}/shadow.html")
    assert daemon.do("get", "title") == {"value": "Shadow"}
    daemon.do("tab", "close")
    assert len(daemon.do("tab", "close", "1")["tabs"]) == 1
    assert daemon.do("get", "title") == {"value": "Dialogs"}


@pytest.mark.parametrize("colours", ["dark", "light"])
def test_viewport_and_colours(daemon: Daemon, pages: str, colours: str) -> None:
    daemon.do("open", f"{pages}/form.html")
    daemon.do("emulatemedia", colours)
    assert daemon.eval(f"matchMedia('(prefers-color-scheme: {colours})').matches") is True
    daemon.do("set", "viewport", "801", "603")
    assert daemon.eval("[innerWidth, innerHeight]") == [801, 603]
    daemon.do("tab", "new")
    assert daemon.eval("[innerWidth, innerHeight]") == [801, 603]
    daemon.do("tab", "close")
    daemon.do("set", "viewport", "1280", "720")
    assert daemon.fails("set", "viewport", "1", "x")[0] == "usage"


def test_what_is_no_command(daemon: Daemon) -> None:
    assert daemon.fails("dance")[0] == "usage"
    assert daemon.fails("click")[0] == "usage"
    assert daemon.request("POST", "/command", {"args": []})[0] == 400
    assert daemon.request("POST", "/command", ["open"])[0] == 400
    assert daemon.request("GET", "/command")[0] == 405
    assert daemon.request("GET", "/elsewhere")[0] == 404
    assert daemon.request("GET", "/stream")[0] == 426
    assert daemon.request("GET", "/status")[1]["data"].keys() == daemon.status().keys()
