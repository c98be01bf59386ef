"""Dry run of a pickle: determines its calls and allocations without making them.

The opcodes drive a small stack machine on symbols. It answers three questions before torch sees a byte: which names the pickle
would import, whether every tensor lies inside its storage, and how much memory everything would take. Its purpose is early
detection with good error messages; the actual protection is torch.load(weights_only=True) in a child process, which follows.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from landscape.checkpoints.reading.allocations import ALLOWED, Ledger
from landscape.checkpoints.reading.symbols import Global, Made, Mapping, bad, is_program, kind
from landscape.errors import MalformedError, UnsafeError, printable

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's names, used by protocol 2
_BROKEN = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass
class Findings:
    """The result of a dry run.

    Attributes:
        value: the symbolic object.
        end: offset of the first byte after the pickle.
        storages: bytes that the pickle declares for every storage, by key.
        itemsizes: bytes of one element of each storage.
        foreign: names that are not allowed, in the order of the file.
        modules: those of them that are classes of whole networks.
        protocol: highest pickle protocol that its opcodes need.
    """

    value: Any = None
    end: int = 0
    storages: dict[str, int] = field(default_factory=dict)
    itemsizes: dict[str, int] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    protocol: int = 0


def examine(file: BinaryIO, *, budget: int, more: frozenset[str] = frozenset(), protocol: int = 2) -> Findings:
    """Dry-run the pickle at the file's position, and leave the file after it.

    Args:
        file: an open file.
        budget: most bytes that the pickle may declare.
        more: further names that it may use; what they would make is a `Made` with its state.
        protocol: highest protocol of its opcodes.

    Raises:
        UnsafeError: it refers to a name that is not plain data, whatever else is wrong with it.
        MalformedError: it is broken, or declares more than `budget` bytes.
    """
    machine = _Machine(file, budget, ALLOWED | more)
    try:
        machine.run()
    except _BROKEN as error:
        machine.refuse_foreign()
        raise bad(f"a well-formed pickle, found {type(error).__name__}: {error}") from None
    except MalformedError:
        machine.refuse_foreign()
        raise
    machine.refuse_foreign()
    findings = machine.findings
    if findings.protocol > protocol:
        raise bad(f"pickle protocol {protocol}, as torch writes it, found opcodes of protocol {findings.protocol}")
    return findings


class _Machine:
    """The stack machine; one method for each group of opcodes."""

    def __init__(self, file: BinaryIO, budget: int, allowed: frozenset[str]) -> None:
        self.file, self.ledger, self.allowed = file, Ledger(budget), allowed
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.findings = Findings()

    def run(self) -> None:
        """Execute until STOP."""
        for opcode, argument, _ in pickletools.genops(self.file):
            # FRAME and the other opcodes of protocols 3 to 5 are executed too, so that the names they use are reported.
            self.findings.protocol = max(self.findings.protocol, opcode.proto)
            action = _ACTIONS.get(opcode.name)
            if action is not None:
                action(self, argument)
            elif opcode.name != "STOP":
                self.stack.append(argument if opcode.arg is not None else _CONSTANTS[opcode.name])
        self.findings.value = self.stack.pop()
        self.findings.end = self.file.tell()
        self.findings.storages, self.findings.itemsizes = self.ledger.storages, self.ledger.itemsizes

    def refuse_foreign(self) -> None:
        """Raise for the most dangerous name that is not plain data."""
        foreign = self.findings.foreign
        programs = [name for name in foreign if is_program(name)]
        if self.findings.modules and set(programs) <= {"builtins.getattr"}:
            programs = []  # a genuine network that holds a bound method
        convert = "if you trust it, run: m = torch.load(PATH, weights_only=False); torch.save({}, NEW)"
        if programs:
            raise UnsafeError(
                f"expected weights, found a pickle that names {printable(programs[0], limit=120)}: reading it could run code",
                fix="do not load it; get the weights as .safetensors from a source that you trust",
            )
        if self.findings.modules:
            name = printable(self.findings.modules[-1], limit=120)  # the outermost is built last
            raise UnsafeError(
                f"expected weights, found a whole pickled network ({name}), which needs code to be read",
                fix=convert.format("m.state_dict()"),
            )
        if foreign:
            raise UnsafeError(
                f"expected plain data, found a pickle that names {printable(foreign[0], limit=120)}: reading it needs code",
                fix=convert.format('m["state_dict"]'),
            )

    # Stack -----------------------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self, _: Any = None) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    # Containers ------------------------------------------------------------------------------------------------------

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise bad(f"a list to append to, found a {kind(self.stack[-1])}")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Made) and self.findings.foreign:
            return  # an instance of a foreign class; the run ends with an error
        if not isinstance(target, dict):
            raise bad(f"a dict to set items on, found a {kind(target)}")
        if len(items) % 2:
            raise bad("pairs of keys and values, found a key without a value")
        target.update(zip(items[::2], items[1::2], strict=True))

    def pairs(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.set_items(items)

    # Names and calls -------------------------------------------------------------------------------------------------

    def name(self, module: str, name: str) -> None:
        full = f"{_RENAMED.get(module, module)}.{name}"
        if full not in self.allowed:
            self.findings.foreign.append(full)
        self.stack.append(Global(full))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise bad("the name of a global, found something else")
        self.name(module, name)

    def instance(self, argument: str) -> None:
        items = self.pop_mark()
        self.name(*argument.split(" ", 1))
        self.stack.append(self.ledger.call(self.stack.pop(), tuple(items)))

    def object(self, _: Any) -> None:
        cls, *arguments = self.pop_mark()
        self.stack.append(self.ledger.call(cls, tuple(arguments)))

    def reduce(self, _: Any) -> None:
        arguments = self.stack.pop()
        self.stack.append(self.ledger.call(self.stack.pop(), arguments))

    def new_keywords(self, _: Any) -> None:
        self.stack.pop()
        self.reduce(None)

    def extension(self, _: Any) -> None:
        self.findings.foreign.append("an entry of the extension registry")
        self.stack.append(Made("extension"))

    def persistent(self, _: Any) -> None:
        reference = self.stack.pop()
        match reference:
            case ("module", Global(name), *_):  # the legacy format's reference to a network's source
                self.findings.modules.append(name)
                self.findings.foreign.append(name)
                self.stack.append(reference[1])
            case _:
                self.stack.append(self.ledger.storage(reference))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Made):
            target.state = state
            attributes = state[0] if isinstance(state, tuple) and state else state
            if isinstance(attributes, dict) and {"_parameters", "_modules"} <= set(attributes):
                self.findings.modules.append(target.maker)
        elif not isinstance(target, Mapping) or not isinstance(state, dict):
            raise bad(f"an object that can be given a state, found a {kind(target)}")


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def _push(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    """Opcodes that push an empty container."""
    return lambda machine, _: machine.stack.append(make())


def _gather(count: int) -> Callable[[_Machine, Any], None]:
    """TUPLE1 to TUPLE3."""

    def action(machine: _Machine, _: Any) -> None:
        if len(machine.stack) < count:
            raise bad("a tuple's items on the stack, found too few")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return action


_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "EMPTY_LIST": _push(list),
    "EMPTY_TUPLE": _push(tuple),
    "EMPTY_DICT": _push(dict),
    "EMPTY_SET": _push(lambda: Made("set")),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": _gather(1),
    "TUPLE2": _gather(2),
    "TUPLE3": _gather(3),
    "DICT": _Machine.pairs,
    "FROZENSET": lambda machine, _: machine.push(Made("frozenset", machine.pop_mark())),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.pop_mark(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.stack.append(machine.memo[index])),
    "GLOBAL": lambda machine, argument: machine.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_global,
    "INST": _Machine.instance,
    "OBJ": _Machine.object,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_keywords,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.extension),
}
