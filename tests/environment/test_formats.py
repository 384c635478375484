"""What other programs read of each format: a real shell, python-dotenv, json; docker's rules."""

import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.environment.formats import as_json, docker, dotenv, shell

#: Bytes that are no UTF-8 come as surrogates.
ANY_VALUE = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
AWKWARD = st.text(st.sampled_from("'\"\\$`!# \n\r\t=ab{}()é"), max_size=12)
NAMES = st.from_regex(r"V[A-Za-z0-9_]{0,8}", fullmatch=True)


def sourced(text: str, program: str = "sh") -> dict[str, str]:
    """The environment of a process that a shell started after it read *text*."""
    ran = subprocess.run(
        [program, "-c", 'eval "$(cat)"; exec env -0'],
        input=text.encode("utf-8", "surrogateescape"),
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
        timeout=20,
    )
    assert ran.stderr == b""
    pairs = (each.partition(b"=") for each in ran.stdout.split(b"\0") if each)
    return {name.decode(): value.decode("utf-8", "surrogateescape") for name, _, value in pairs}


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(NAMES, ANY_VALUE | AWKWARD, max_size=8))
def test_a_shell_gives_every_byte_back(values: Mapping[str, str]) -> None:
    made = shell(values)
    assert made.left_out == ()
    assert {name: value for name, value in sourced(made.text).items() if name.startswith("V")} == values


@pytest.mark.parametrize("program", ["sh", "bash"])
def test_nothing_in_a_value_is_run(program: str) -> None:
    values = {"V": "'; echo no; $(echo no) `echo no` \\\n${PATH} !! ~", "W": "-n", "X": ""}
    found = sourced(shell(values).text, program)
    assert {name: found[name] for name in values} == values


@pytest.mark.parametrize("program", ["bash", "zsh"])
def test_no_variable_of_the_shell_runs_its_value(program: str, tmp_path: Path) -> None:
    """Integers of a shell are evaluated as they are set, prompts as they are shown (here by -x)."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")  # zsh; bash is everywhere
    listed = subprocess.run([program, "-c", "typeset"], capture_output=True, text=True, check=True, timeout=20).stdout
    own = set(re.findall(r"\b([A-Za-z_]\w*)(?==|$)", listed, re.MULTILINE))
    made = tmp_path / "made"
    values = dict.fromkeys(sorted(own | {"HISTCMD", "SRANDOM", "PS4", "PROMPT_COMMAND"}), f"path[$(touch {made})1]")
    text = f"set -x; eval {shlex.quote(shell(values).text)}; :"
    options = ["-o", "promptsubst"] if program == "zsh" else []
    subprocess.run([program, *options, "-c", text], capture_output=True, check=False, timeout=20)  # -x is long
    assert not made.exists()
    assert shell({"SECONDS": "30", "LINES": "9"}).left_out == ()


def test_what_belongs_to_the_machine_stays() -> None:
    made = shell({"PATH": "/app/bin", "LD_PRELOAD": "/tmp/x.so", "PS1": "$(id)", "IFS": "/", "PORT": "80"})
    assert made.text == "export PORT='80'\n"
    assert len(made.left_out) == 4


def test_names_that_no_shell_takes() -> None:
    made = shell({"a.b": "1", "1a": "2", "A-B": "3", "UID": "0", "x; rm": "4", "OK": "5", "é": "6"})
    assert made.text == "export OK='5'\n"
    assert [each.partition(":")[0] for each in made.left_out] == ["a.b", "1a", "A-B", "UID", "x; rm", "é"]


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True), TEXT | AWKWARD, max_size=8))
def test_python_dotenv_gives_every_value_back(values: Mapping[str, str]) -> None:
    made = dotenv(values)
    assert made.left_out == ()
    assert dotenv_values(stream=io.StringIO(made.text, newline=""), interpolate=False) == values


def test_dotenv_is_plain_where_it_can_be() -> None:
    values = {"A": "https://a.b:1/x", "B": "two words", "C": 'say "hi"\nand $x', "D": r"\d+", "E": "it's", "F": ""}
    assert dotenv(values).text.splitlines() == [
        "A=https://a.b:1/x",
        "B='two words'",
        'C=\'say "hi"',
        "and $x'",
        r"D='\d+'",
        'E="it\'s"',
        "F=",
    ]


def test_what_a_dotenv_file_cannot_hold() -> None:
    made = dotenv({"a b": "1", "": "2", "#": "3", "V": "\udcff", "OK": "4"})
    assert (made.text, len(made.left_out)) == ("OK=4\n", 4)


@settings(deadline=None)
@given(st.dictionaries(TEXT, TEXT, max_size=8))
def test_json(values: Mapping[str, str]) -> None:
    made = as_json(values)
    assert json.loads(made.text) == values
    assert made.text.isascii()


def test_what_json_cannot_hold() -> None:
    made = as_json({"B": "\udcff", "A": "1"})
    assert (made.text, made.left_out) == (
        '{\n  "A": "1"\n}\n',
        ("B: its value is not UTF-8, which JSON is",),
    )


def docker_reads(text: str) -> dict[str, str]:
    """github.com/docker/cli/pkg/kvfile: Parse, in the version that takes quotes away."""
    found = {}
    for raw in text.encode().decode().split("\n"):
        line = raw.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        assert len(line.encode()) < 64 * 1024
        name, equals, value = line.partition("=")
        assert name
        assert equals
        assert not {" ", "\t"} & set(name)
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name] = value
    return found


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(
            st.characters(codec="ascii", categories=["L", "N", "P", "S"], exclude_characters="="),
            min_size=1,
            max_size=6,
        ),
        TEXT | AWKWARD | ANY_VALUE,
        max_size=8,
    )
)
def test_docker_reads_what_is_written_and_the_rest_is_named(values: Mapping[str, str]) -> None:
    made = docker(values)
    found = docker_reads(made.text)
    named = [each.partition(": its value")[0].partition(": docker reads")[0] for each in made.left_out]
    assert found == {name: value for name, value in values.items() if name not in named}


def test_what_docker_cannot_read() -> None:
    values = {"A": "1\n2", "B": "1\r", "C": "\udcff", "D": '"q"', "E": "x" * 65536, "#F": "1", "G H": "1", "I": ' "a" '}
    made = docker(values)
    assert made.text == 'I= "a" \n'
    assert len(made.left_out) == 7


def test_no_value_is_in_a_reason_or_a_repr() -> None:
    for form in (shell, dotenv, as_json, docker):
        made = form({"A B": "hunter2\n\udcff", "B": "hunter2"})
        assert "hunter2" not in repr(made)
