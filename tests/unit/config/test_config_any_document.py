"""Whatever stands in a file or the environment: a configuration or a refusal, never a traceback."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from oqtod.config import ConfigRefused, load
from oqtod.config.keys import dev_user_keys, keys, sections
from oqtod.config.toml import key_text, value_text

names = st.sampled_from(
    [name for path in [*keys(), *sections(), *dev_user_keys()] for name in path.split(".")]
)
odd_text = st.sampled_from(
    [
        "env:HOME",
        "env:NOPE",
        "env:",
        "~",
        "~x",
        "$X",
        "${",
        "${HOME}/{user_id}",
        "{uid}",
        "*",
        "null",
        "\0",
        "http://",
    ]
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.booleans() | st.integers() | st.floats() | text | odd_text
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | text, inner, max_size=4),
    max_leaves=8,
)
documents = st.dictionaries(names | text, values, max_size=5)
real_settings = st.dictionaries(st.sampled_from(list(keys())), values, max_size=6)


def toml(document: dict[str, object]) -> str:
    return "".join(f"{key_text(name)} = {value_text(value)}\n" for name, value in document.items())


def load_or_refuse(content: bytes, environ: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.toml")
        file.write_bytes(content)
        try:
            loaded = load(file, environ=environ)
        except ConfigRefused as refused:
            assert refused.problems
            assert "\x1b" not in str(refused)
            for problem in refused.problems:
                assert problem.message
                assert "\n\n" not in str(problem)
            str(refused).encode()
        else:
            assert set(loaded.sources) == set(keys())
            repr(loaded).encode()


@given(documents)
def test_any_document(document: dict[str, object]) -> None:
    load_or_refuse(toml(document).encode(), {"HOME": "/h", "X": "/x"})


@given(real_settings)
def test_any_value_for_real_keys(given_values: dict[str, object]) -> None:
    content = "".join(
        f"{'.'.join(key_text(part) for part in path.split('.'))} = {value_text(value)}\n"
        for path, value in given_values.items()
    )
    load_or_refuse(content.encode(), {"HOME": "/h", "X": "/x"})


@given(st.binary(max_size=60) | text.map(str.encode))
def test_any_bytes(content: bytes) -> None:
    load_or_refuse(content, {"HOME": "/h"})


# What os.environ can hold: bytes that are no UTF-8 arrive as lone surrogates, but never a zero byte.
environment_text = st.binary(max_size=30).map(
    lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
) | odd_text.map(lambda value: value.replace("\0", ""))
environment_names = st.sampled_from(
    [f"OQTO__{path.upper().replace('.', '__')}" for path in [*keys(), *sections()] if path]
    + [
        "RUST_LOG",
        "OQTO_LOG",
        "OQTO_DATABASE_PATH",
        "OQTO_FRONTEND_DIR",
        "HOME",
        "XDG_DATA_HOME",
        "EAVS_MASTER_KEY",
    ]
)


@given(
    st.dictionaries(environment_names | environment_text.map("OQTO__".__add__), environment_text, max_size=5)
)
def test_any_environment(environ: dict[str, str]) -> None:
    load_or_refuse(b"", environ)
