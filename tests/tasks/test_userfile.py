"""A user's task file: what it may do, and the one line that each of its mistakes gets."""

import sys

import pytest
import torch

from landscape.errors import UsageError
from landscape.tasks.task import Task
from landscape.tasks.userfile import load_user_task

HEAD = """import torch
from landscape.tasks import Task

def make():
    x = torch.eye(3)
    return Task(model=torch.nn.Linear(3, 3), loss=torch.nn.CrossEntropyLoss(), train=(x, torch.arange(3)))

"""


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "task.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_default_and_named_function(write):
    path = write(HEAD + "def task():\n    return make()\n\ndef other(classes=3):\n    assert classes == 4\n    return make()\n")
    assert isinstance(load_user_task(path), Task)
    assert load_user_task(f"{path}:other", {"classes": 4}).size("train") == 3
    assert load_user_task(f"{path}:make").objective(dtype="float64").samples == 3


def test_neighbours_are_importable_and_all_is_restored(write, tmp_path, capfd):
    write("WIDTH = 5\n", "sizes.py")
    path = write(HEAD + "def task():\n    import sizes\n    print('hello', sizes.WIDTH)\n    return make()\n")
    before, quiet = list(sys.path), sys.dont_write_bytecode
    load_user_task(path)
    assert sys.path == before
    assert sys.dont_write_bytecode == quiet
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sizes.py", "task.py"]
    out, err = capfd.readouterr()
    assert (out, err) == ("", "hello 5\n")  # stdout belongs to the results


def test_two_folders_with_a_module_of_one_name(tmp_path):
    for folder, width in (("a", 2), ("b", 7)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net_of_mine.py").write_text(
            f"import torch\n\ndef net():\n    return torch.nn.Linear(3, {width})\n"
        )
        (tmp_path / folder / "task.py").write_text(
            "import torch\nfrom landscape.tasks import Task\nfrom net_of_mine import net\n\ndef task():\n"
            "    return Task(net(), torch.nn.CrossEntropyLoss(), train=(torch.eye(3), torch.tensor([0, 1, 0])))\n"
        )
    widths = [load_user_task(str(tmp_path / f / "task.py")).model.out_features for f in ("a", "b", "a")]
    assert widths == [2, 7, 2]


def test_edited_file_is_read_anew(write):
    load_user_task(write(HEAD + "def task():\n    return make()\n"))
    path = write(HEAD + "def task():\n    return 1234.5\n")  # as long as before, within the same second
    with pytest.raises(UsageError, match="found float"):
        load_user_task(path)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "def task(:\n    pass\n",
            "expected task.py to run, found SyntaxError at task.py:8: invalid syntax; fix the task file",
        ),
        ("def task():\n    return 3\n", r"expected task\(\) in .*task.py to return a landscape.Task, found int"),
        ("def task():\n    return None\n", "to return a landscape.Task, found NoneType; end it with: return Task"),
        ("def task():\n    raise SystemExit(7)\n", r"found it exits \(7\) at task.py:9 in task"),
        ("import sys\nsys.exit()\n", r"found it exits \(None\) at task.py:9 in <module>"),
        ("def task():\n    return 1 / 0\n", "found ZeroDivisionError at task.py:9 in task: division by zero"),
        (
            "def task():\n    return torch.zeros(2) @ torch.zeros(3)\n",
            "found RuntimeError at task.py:9 in task: .*size mismatch|inconsistent",
        ),
        (
            "def task():\n    return Task(1, 2, 3)\n",
            "found UsageError at task.py:9 in task: expected the task's model to be a torch.nn.Module",
        ),
        ("import not_there_at_all\n", "found ModuleNotFoundError at task.py:8 in <module>: No module named 'not_there_at_all'"),
        ("class Stop(BaseException): pass\nraise Stop('a\\nb')\n", "found Stop at task.py:9 in <module>: a b; fix"),
        (
            "def tusk():\n    return make()\n",
            r"expected a function task\(\) in .*task.py, found make, tusk; name one with --task .*task.py:make",
        ),
        (
            "def loss(model, batch):\n    return 0\n\ndef pairs(width=3):\n    return 0\n\ndel make\n",
            r"found loss, pairs; name one with --task .*task.py:pairs$",
        ),
        ("def loss(model, batch):\n    return 0\n\ndel make\n", r"found loss; write def task\(\): return Task"),
        ("task = 3\n", r"expected a function task\(\) in .*, found make;"),
        (
            "def task(width):\n    return make()\n",
            "to be callable with no arguments, found: missing a required argument: 'width'",
        ),
    ],
)
def test_mistakes(write, body, text):
    with pytest.raises(UsageError, match=text) as caught:
        load_user_task(write(HEAD + body))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_error_in_a_neighbour_names_the_neighbour(write):
    write("def net():\n    raise ValueError('no net')\n", "nets.py")
    path = write("import nets\n\ndef task():\n    return nets.net()\n")
    with pytest.raises(UsageError, match=r"found ValueError at nets.py:2 in net: no net"):
        load_user_task(path)
    write("def broken(:\n", "worse.py")
    with pytest.raises(UsageError, match=r"found SyntaxError at worse.py:1"):
        load_user_task(write("import worse\n", "b.py"))


def test_unknown_option_and_missing_file(write, tmp_path):
    path = write(HEAD + "def task(width=3):\n    return make()\n")
    with pytest.raises(UsageError, match="to be callable with depth, found: got an unexpected keyword argument 'depth'"):
        load_user_task(path, {"depth": 2})
    with pytest.raises(UsageError, match=r"expected a task file at .*nowhere.py, found nothing there"):
        load_user_task("nowhere.py")
    with pytest.raises(UsageError, match=r"expected a task file at .*, found a folder"):
        load_user_task(str(tmp_path))


def test_interrupt_is_not_an_error(write):
    with pytest.raises(KeyboardInterrupt):
        load_user_task(write("raise KeyboardInterrupt\n"))


def test_global_generator_is_the_users_own(write):
    torch.manual_seed(0)
    path = write(HEAD + "def task():\n    return make()\n")
    assert load_user_task(path).notices == ()
