"""What users get wrong at the command line, and what their code does: the right exit code, one line, never a hang."""

import json
import os
import re
import socket
import threading
from pathlib import Path

import pytest
import torch
from in_process import run
from safetensors.torch import save_file
from torch import nn

from landscape.tasks import Recipe, train

TASK = """import os, sys
import torch
from torch import nn
from landscape import Task

g = torch.Generator().manual_seed(0)
X, Y = torch.randn(32, 4, generator=g), torch.randint(0, 3, (32,), generator=g)


class Own(BaseException):
    pass


def broken(n=[0]):
    n[0] += 1
    if n[0] > {after}:
        {broken}


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, i):
        {in_data}
        return X[i], Y[i]


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        {in_forward}
        return self.b(torch.relu(self.a(x)))


def loss(output, target):
    {in_loss}
    return nn.functional.cross_entropy(output, target)


def task():
    return Task(M(), {loss}, {data})
"""


@pytest.fixture
def write(tmp_path):
    """A checkpoint, and a function that writes its task file with something broken in it; gives the arguments of a command."""

    def written(broken: str, where: str = "in_forward", after: int = 20, data: str = "(X, Y)") -> list[object]:
        torch.manual_seed(0)
        a, b = nn.Linear(4, 8), nn.Linear(8, 3)
        weights = {f"{n}.{k}": v for n, m in (("a", a), ("b", b)) for k, v in m.state_dict().items()}
        save_file(weights, tmp_path / "net.safetensors")
        loss = "loss" if where == "in_loss" else "nn.CrossEntropyLoss()"
        fields = {"in_forward": "", "in_loss": "", "in_data": "", "after": after, "broken": broken, "loss": loss, "data": data}
        (tmp_path / "t.py").write_text(TASK.format(**fields | {where: "broken()"}))
        return ["sharpness", tmp_path / "net.safetensors", "--task", tmp_path / "t.py"]

    return written


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo.safetensors"
    train(Recipe(epochs=1, network_options={"widths": [4]}), out=path)
    return path


BROKEN = {
    "sys.exit(0)": "it exits (0)",
    "sys.exit()": "it exits (None)",
    "sys.exit('bye')": "it exits ('bye')",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise GeneratorExit": "GeneratorExit",
    "raise Own('mine')": "Own: mine",
    "raise EOFError": "EOFError",
    "raise BrokenPipeError('of mine')": "BrokenPipeError: of mine",
    "raise FileNotFoundError('of mine')": "FileNotFoundError: of mine",
    "broken([n[0]])": "RecursionError: maximum recursion depth exceeded",
}


@pytest.mark.parametrize("code", BROKEN)
def test_what_a_network_raises_is_told_with_its_own_line(code, write, capfd):
    """Each of these ended with exit 0, 1, 130 or 141, some without a word."""
    done = run(capfd, *write(code), "--measures", "lambda_max", "--json")
    assert done.code == 2
    assert done.out == ""
    assert f"found {BROKEN[code]}" in done.error
    assert "(t.py:17)" in done.error
    assert done.error.endswith("fix it, or pass --debug for the traceback")


def test_memory_that_a_network_asks_for_in_vain_is_told_as_such(write, capfd):
    for code in ("raise MemoryError", "torch.empty(2**60)"):
        done = run(capfd, *write(code), "--measures", "lambda_max")
        assert done.code == 6
        assert "expected the work to fit into memory" in done.error


def test_an_exit_in_the_loss_and_in_the_data(write, capfd):
    done = run(capfd, *write("sys.exit(0)", "in_loss"), "--measures", "lambda_max")
    assert done.code == 2
    assert "it exits (0) (t.py:17)" in done.error
    loader = "torch.utils.data.DataLoader(Rows(), 8, num_workers={})"
    done = run(capfd, *write("sys.exit(0)", "in_data", 10, data=loader.format(0)), "--measures", "lambda_max")
    assert done.code == 2
    assert "it exits (0) (t.py:17)" in done.error


@pytest.mark.parametrize(
    ("code", "told"), [("raise ValueError('no such row')", "ValueError: no such row (t.py:17)"), ("os._exit(3)", "exited")]
)
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_what_breaks_in_a_worker_of_the_data_is_the_users(code, told, write, capfd):
    data = "torch.utils.data.DataLoader(Rows(), 8, num_workers=1)"
    done = run(capfd, *write(code, "in_data", 5, data), "--measures", "lambda_max")
    assert done.code == 2
    assert told in done.error


def test_debug_shows_the_traceback_and_ends_alike(write, capfd):
    done = run(capfd, *write("sys.exit(0)"), "--measures", "lambda_max", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err
    assert "SystemExit: 0" in done.err


NINES = "9" * 5000


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-M", f"classes={NINES}"], "expected -M classes as a number of 64 bits"),
        (["-M", f"classes={'9' * 30}"], "expected -M classes as a number of 64 bits"),
        (["-M", f'widths=[1, {{"a": {"9" * 30}}}]'], "expected -M widths as a number of 64 bits"),
        (["-M", "classes=" + "[" * 100_000], "expected -M classes as a number of 64 bits"),
        (["-M", "classes=" + "[" * 3000], "expected -M classes as a number of 64 bits, a text or a short list, found"),
        (["--memory", f"{NINES}GiB"], "expected a memory size"),
        (["--memory", f"{'9' * 300}GiB"], "expected a memory size"),
        (["--data", "safetensors:~no-such-user/x"], "expected a path, found '~no-such-user/x'"),
        (["--task", "~no-such-user/t.py"], "expected a path, found '~no-such-user/t.py'"),
        (["--measures", f"trace:probes={'9' * 400}"], "expected a number from 0 for trace:probes"),
        (["--measures", "trace:probes=9999999999999"], "expected a number from 0 for trace:probes"),
        (["--measures", f"sam:rho={NINES}"], "expected a number from 0 for sam:rho"),
    ],
)
def test_values_that_no_option_can_have(options, told, demo, capfd):
    named = [] if set(options) & {"--memory", "--task", "--measures"} else ["--model", "mlp"]
    named += [] if set(options) & {"--data", "--memory", "--task", "--measures"} else ["--data", "digits"]
    done = run(capfd, "sharpness", demo, *named, "--samples", 8, "--measures", "logit_norm", *options)
    assert done.code == 2
    assert told in done.error
    assert len(done.error) < 1300


@pytest.mark.parametrize("span", [("-1e308", "1e308"), ("-inf", "1"), ("0", "1e31"), ("nan", "1"), ("1", "-1")])
def test_spans_that_weights_cannot_have(span, demo, tmp_path, capfd):
    done = run(capfd, "surface", demo, "--grid", 3, "--samples", 8, "--span", *span, "--out", tmp_path / "s")
    assert done.code == 2
    assert "span" in done.error
    assert not (tmp_path / "s").exists()


def test_no_home(demo, monkeypatch, capfd):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("nobody")))
    done = run(capfd, "sharpness", demo, "--model", "mlp", "--data", "safetensors:~/x", "--measures", "logit_norm")
    assert done.code == 2
    assert "expected a path, found '~/x'" in done.error


DEEP = "[" * 100_000
FILES = {
    "nested": (DEEP, "nested too deeply"),
    "numbers": ('{"results": [' + NINES + "]}", "found"),
    "other": ('{"results": {"a": 1}}', "found"),
    "list": ("[1, 2]", "found"),
    "lacking": ('{"results": [{}]}', "found one without 'loss'"),
    "bytes": ("\udcff\udcfe{", "found"),
    "empty": ("", "found"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_result_that_is_none_is_malformed(kind, tmp_path, capfd):
    text, told = FILES[kind]
    (tmp_path / "sharpness.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    done = run(capfd, "report", tmp_path, "--out", tmp_path / "o.html")
    assert done.code == 4
    assert told in done.error
    assert "expected a result of landscape in " in done.error


@pytest.mark.parametrize("kind", FILES)
def test_a_record_that_is_none_is_another_run(kind, demo, tmp_path, capfd):
    (tmp_path / "run.json").write_text(FILES[kind][0], encoding="utf-8", errors="surrogateescape")
    done = run(capfd, "inspect", demo, "--out", tmp_path)
    assert done.code == 2
    assert "another run" in done.error
    assert sorted(os.listdir(tmp_path)) == ["run.json"]


def test_a_file_of_any_size_is_not_read(tmp_path, monkeypatch, capfd):
    with open(tmp_path / "sharpness.json", "wb") as file:
        file.truncate(1 << 40)  # a hole: takes no room, and would take a terabyte of memory
    done = run(capfd, "report", tmp_path, "--out", tmp_path / "o.html")
    assert done.code == 4
    assert "1,099,511,627,776 bytes, more than the" in done.error


def within(seconds: float, call):
    """What a call gives; fails if it waits."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits"
    return found[0]


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "socket", "folder"])
def test_what_is_no_file_is_not_read(kind, tmp_path):
    from landscape.cli.surfaces.requested_axes import path_sha256
    from landscape.errors import UsageError
    from landscape.machine.files import read_json
    from landscape.report import is_report

    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")

    def refused() -> str:
        with pytest.raises(OSError, match=f"it is a {kind.split()[-1]}, not a file") as error:
            read_json(path)
        if kind != "folder":
            with pytest.raises(UsageError):
                path_sha256(path)
        assert not is_report(path)
        return str(error.value)

    assert within(20, refused)


def test_pipes_where_commands_read_and_write(demo, tmp_path, capfd):
    (tmp_path / "r").mkdir()
    os.mkfifo(tmp_path / "r" / "sharpness.json")
    done = run(capfd, "report", tmp_path / "r", "--out", tmp_path / "o.html")
    assert (done.code, "it is a pipe, not a file" in done.error) == (4, True)
    os.mkfifo(tmp_path / "p.html")
    done = run(capfd, "report", demo, "--out", tmp_path / "p.html", "--measures", "logit_norm")
    assert (done.code, "found another file" in done.error) == (2, True)
    (tmp_path / "q").mkdir()
    os.mkfifo(tmp_path / "q" / "run.json")
    done = run(capfd, "inspect", demo, "--out", tmp_path / "q")
    assert (done.code, "it is a pipe, not a file" in done.error) == (2, True)
    done = run(capfd, "inspect", demo, "--out", tmp_path / "p.html")
    assert done.code == 2


@pytest.mark.parametrize(
    "environment", [{"RANK": "x"}, {"WORLD_SIZE": "-1"}, {"RANK": "3", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "9" * 400}]
)
def test_an_environment_that_makes_no_sense(environment, demo, monkeypatch):
    from landscape.errors import UsageError
    from landscape.machine.torchrun import launched

    monkeypatch.setenv("MASTER_ADDR", "localhost")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"RANK|WORLD_SIZE"):
        launched()


# What a terminal obeys in one name, what a page, a table and a spreadsheet obey in the other.
NAMES = ("a\x1b[31mred\u202egnp\x07\x9b2Jb\nerror: fake", "=cmd()[bold]<b>&amp;")
COMMANDS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_commands_no_terminal(name, demo, tmp_path, capfd):
    """Neither in what is printed nor in what is written, nor does it end a line."""
    one, two = (tmp_path / f"{name}{i}.safetensors" for i in (1, 2))
    one.write_bytes(demo.read_bytes())
    two.write_bytes(demo.read_bytes())
    few = ["--samples", 16]
    done = [
        run(capfd, "inspect", one),
        run(capfd, "sharpness", one, two, "--measures", "logit_norm", *few, "--out", tmp_path / "s"),
        run(capfd, "compare", one, two, "--measures", "logit_norm", "--grid", 3, *few, "--out", tmp_path / "c"),
        run(capfd, "report", tmp_path / "s", tmp_path / "c", "--title", name, "--out", tmp_path / f"{name}.html"),
        run(capfd, "sharpness", tmp_path / f"{name}3.safetensors"),
        run(capfd, "compare", one, "--group", f"{name}={one}", "--measures", name),
    ]
    assert [d.code for d in done] == [0, 0, 0, 0, 2, 2]
    printed = "".join(d.out + d.err for d in done)
    assert not COMMANDS.search(printed)
    assert not any(line.startswith("error: fake") for line in printed.splitlines())
    page = (tmp_path / f"{name}.html").read_text()
    assert not COMMANDS.search(page)
    assert "<b>&amp;" not in page
    for table in (tmp_path / "c").glob("*.csv"):
        text = table.read_text()
        assert not COMMANDS.search(text)
        assert not re.search(r'(^|,)"?=cmd', text, re.M)
    assert json.loads((tmp_path / "s" / "sharpness.json").read_text())["results"][0]["checkpoint"] == str(one)


def test_heads_of_tables_are_no_markup(demo, capfd):
    from landscape.cli.terminal import Terminal

    Terminal(json=False).table(("[bold]a\x1b[31m", "b\nc"), [("[red]x", "\u202ey")])
    assert capfd.readouterr().out.split() == ["[bold]a\\x1b[31m", "b\\nc", "[red]x", "\\u202ey"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("surface", "--directions", "to:a.pt", "to:b.pt"), "--directions to:a.pt,to:b.pt"),
        (("surface", "--dim", "1", "--directions", "random", "--nothing", "x"), None),
        (("reparam", "--seed", "1", "--measures", "trace,", "lambda_max"), "--measures trace,lambda_max"),
    ],
)
def test_a_list_with_spaces_is_answered_with_commas(words, told, demo, capfd):
    done = run(capfd, words[0], demo, *words[1:])
    assert done.code == 2
    assert done.error.endswith("--help" if told is None else f"separate by commas: {told}")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sharpness", "lambda_max"), "lambda_max"),
        (("sharpness", "--measures", "trace", "lambda_max", "keskar:eps=1e-4"), "trace,lambda_max,keskar:eps=1e-4"),
        (("sharpness", "all"), "all"),
        (("compare", "trace,lambda_max"), "trace,lambda_max"),
        (("report", "trace"), "trace"),
        (("sweep", "trace"), "trace"),
    ],
)
def test_a_measure_among_the_checkpoints_is_answered_with_its_option(words, told, demo, capfd):
    done = run(capfd, words[0], demo, *words[1:])
    assert done.code == 2
    assert "expected files, found the name of a measure: " in done.error
    assert done.error.endswith(f"pass --measures {told}")


def test_a_file_that_is_named_as_a_measure_is_a_file(demo, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace").write_bytes(demo.read_bytes())
    assert run(capfd, "sharpness", "trace", "--samples", 16, "--measures", "logit_norm").code == 0
    assert "expected a checkpoint" in run(capfd, "sharpness", "traces").error


def test_details_of_an_error_stand_in_one_place(capsys):
    """Tensors that the line names are not listed above it, too; the others of a long table are."""
    from landscape.cli.terminal import Terminal

    rows = [(f"{i}.weight", "8×32", "10×32") for i in range(5)]
    text = "expected weights that fit, found 5 disagreements: 0.weight: 8×32 in the file, 10×32 in the model; and 4 more"
    Terminal(json=False).error(text, rows)
    told = capsys.readouterr().err
    assert told.count("0.weight") == 1
    assert [told.count(f"{i}.weight") for i in range(1, 5)] == [1] * 4


def test_data_where_the_network_belongs_and_pickles_where_tensors_belong(tmp_path, capfd):
    arrays = {"train_x": torch.zeros(4, 3), "train_y": torch.zeros(4, dtype=torch.long)}
    save_file(arrays, tmp_path / "d.safetensors")
    torch.save(arrays, tmp_path / "d.pt")
    for name, written in (("d.safetensors", ""), ("d.pt", ", once written by safetensors.torch.save_file")):
        for more in ((), ("--model", "mlp", "--data", "digits")):
            done = run(capfd, "sharpness", tmp_path / name, *more)
            assert done.code == 2
            assert (
                f"expected the weights of a network, found data in {tmp_path / name}: tensors train_x and train_y" in done.err
            )
            assert f"this one as --data safetensors:{tmp_path / name}{written}" in done.err.replace("\n", "")
    net = tmp_path / "n.pt"
    torch.save(nn.Linear(3, 2).state_dict(), net)
    done = run(capfd, "sharpness", net, "--model", "mlp", "--data", f"safetensors:{tmp_path / 'd.pt'}")
    assert done.code == 2
    assert f"expected a safetensors file, found {tmp_path / 'd.pt'}, which is an archive of torch.save" in done.err


@pytest.mark.parametrize(("given", "meant"), [("--sample", "--samples"), ("--measure", "--measures"), ("--bogus", None)])
def test_a_misspelt_option_is_told_the_one_that_is_meant(given, meant, capfd, monkeypatch):
    from landscape.cli import app

    monkeypatch.setattr("sys.argv", ["landscape", "sharpness", "a.pt", given, "3"])
    with pytest.raises(SystemExit) as code:
        app.run()
    assert code.value.code == 2
    hint = f" (did you mean {meant}?)" if meant else ""
    assert capfd.readouterr().err == f"error: No such option: {given}{hint}; see landscape sharpness --help\n"
