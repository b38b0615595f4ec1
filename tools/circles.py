#!/usr/bin/env python3
"""Finds import circles between the source files of each crate.

    tools/x check circles              every crate of the repository
    tools/x check circles --self-test  checks this program on small crates made for it

A file has an arrow to another one of its crate where its code names something that the other file defines: by `use`, by a path
(`crate::a::B`, `super::c()`, `child::D`), or by a bare name that a glob import or a re-export brings in. Re-exports are followed
to the file that defines the name. A circle is a set of files that reach one another over such arrows.

These alone make no arrow:
- `mod child;`, and `pub use child::Name` whose name the file itself does not use;
- importing a module; what is named through it counts, `module::Name`;
- code under `#[cfg(test)]` and files reached only by it, the folders tests/, benches/ and examples/, comments and documentation;
- methods and fields of a value whose type the file does not name.
A name that no item, import or module explains (made by a macro) counts as defined in the module that the path leads to.
Exit codes: 0 no circle, 1 a circle.
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent

TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/|b?c?r(?P<hashes>\#*)".*?"(?P=hashes)|[bc]?"(?:\\.|[^"\\])*"|b?'(?:\\[^']*'|\\''|[^\\'\n]')|'\w+)"""
    r"""|(?P<token>\$?(?:r\#)?\w+|::|=>|->|.)""", re.S)
ITEMS = {"fn", "struct", "enum", "trait", "type", "const", "static", "union", "mod", "use", "impl", "pub", "unsafe", "extern", "macro_rules", "async"}
DEFINES = {"fn", "struct", "enum", "trait", "type", "const", "static", "union"}
NAME = re.compile(r"\$?[A-Za-z_]\w*$")
CLOSING = {"(": ")", "[": "]", "{": "}"}


class Module:
    """A module of a crate: what it defines, imports and names."""

    def __init__(self, file, folder, parent):
        self.file, self.folder, self.parent = file, folder, parent
        self.root = parent.root if parent else self
        self.children, self.defined, self.imports, self.globs, self.paths = {}, set(), {}, [], []
        self.reexports = set()  # ids of imported paths that make an arrow only where their name is used


def tokens(text):
    """Returns (token, line) of Rust source, without comments, literals of text and lifetimes."""
    found, line = [], 1
    for match in TOKEN.finditer(text):
        if match["token"]:
            found.append((match["token"].removeprefix("r#"), line))
        line += match[0].count("\n")
    return found


def closing(code, at):
    """The place of the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(code)):
        depth += (code[i][0] in CLOSING) - (code[i][0] in CLOSING.values())
        if depth == 0:
            return i
    return len(code) - 1


def end_of_item(code, at):
    """The place after the item, field or statement that begins at `at`."""
    while code[at][0] == "#":
        at = closing(code, at + 1) + 1
    field = code[at][0] not in ITEMS
    while at < len(code):
        token = code[at][0]
        if token in CLOSING:
            at = closing(code, at)
            if token == "{":
                return at + 1
        elif token == ";" or field and token == ",":
            return at + 1
        elif token in CLOSING.values():
            return at
        at += 1
    return at


def use_tree(code, at, prefix, found):
    """Reads a `use` tree from `at`: appends (path, name or `*`, line) and returns the place after it."""
    path, line = list(prefix), code[at][1]
    if code[at][0] == "::":
        path, at = ["::"], at + 1
    while True:
        token, line = code[at]
        if token == "{":
            at += 1
            while code[at][0] != "}":
                at = use_tree(code, at, path, found)
                at += code[at][0] == ","
            return at + 1
        if token == "*":
            found.append((path, "*", line))
            return at + 1
        if token != "self" or not path:
            path = [*path, token]
        at += 1
        if code[at][0] != "::":
            break
        at += 1
    name = path[-1]
    if code[at][0] == "as":
        name, at = code[at + 1][0], at + 2
    found.append((path, name, line))
    return at


def is_test(attribute):
    words = [token for token, _ in attribute]
    return words[:1] == ["test"] or words[:1] == ["cfg"] and "test" in words and "not" not in words


def read(module, code, at=0, end=None):
    """Reads the tokens from `at` to `end` into the module; files of its children are read with it."""
    end = len(code) if end is None else end
    depth, public, path_attribute = 0, False, None
    while at < end:
        token, line = code[at]
        if token == "#" and at + 1 < end and code[at + 1][0] in ("[", "!"):
            begin = at + 1 + (code[at + 1][0] == "!")
            stop = closing(code, begin)
            if is_test(code[begin + 1:stop]):
                at = end if code[at + 1][0] == "!" else end_of_item(code, stop + 1)
            else:
                if [word for word, _ in code[begin + 1:stop]][:2] == ["path", "="]:
                    path_attribute = code[begin + 1][1]
                at = stop + 1
            continue
        if token == "pub":
            public, at = True, at + 1
            if code[at][0] == "(":
                at = closing(code, at) + 1
            continue
        if token == "use" and code[at - 1][0] not in ("<", ",", "+") and code[at + 1][0] != "<":
            found = []
            at = use_tree(code, at + 1, [], found)
            for path, name, line in found:
                if name == "*":
                    module.globs.append(path)
                    continue
                module.imports.setdefault(name, []).append(path)
                if public:
                    module.reexports.add(id(path))
                else:
                    module.paths.append((path, line))
        elif token == "mod" and NAME.match(code[at + 1][0]):
            name = code[at + 1][0]
            if code[at + 2][0] == "{":
                child = Module(module.file, module.folder / name, module)
                stop = closing(code, at + 2)
                read(child, code, at + 3, stop)
                module.children.setdefault(name, []).append(child)
                at = stop + 1
            else:
                file = file_of(module, name, path_attribute)
                if file:
                    module.children.setdefault(name, []).append(load(file, module, path_attribute is not None))
                at += 3
        elif token in DEFINES and depth == 0 and NAME.match(code[at + 1][0]) and code[at + 1][0] not in DEFINES | {"unsafe", "extern"}:
            at += 1 + (code[at + 1][0] == "mut")
            module.defined.add(code[at][0])
            at += 1
        elif token == "macro_rules":
            module.defined.add(code[at + 2][0] + "!")
            at += 3
        elif NAME.match(token) or token == "::" and NAME.match(code[at + 1][0]) and (at == 0 or code[at - 1][0] != ">"):
            before = code[at - 1][0] if at else ""
            path = ["::"] if token == "::" else [token]
            while at + 2 < end and (code[at + 1][0] == "::" or token == "::") and NAME.match(code[at + 2 - (token == "::")][0]):
                at += 2 - (token == "::")
                token = code[at][0]
                path.append(token)
            at += 1
            if at + 1 < end and code[at][0] == "!" and code[at + 1][0] in CLOSING:
                path[-1] += "!"
            if before != ".":
                module.paths.append((path, line))
        else:
            depth += (token in CLOSING) - (token in CLOSING.values())
            at += 1
            if token not in (";", "}"):
                continue
        public, path_attribute = False, None


def file_of(module, name, path_line):
    """The file of `mod name;`; a `#[path]` stands in the line `path_line`."""
    if path_line:
        path = re.search(r'"(.*)"', module.file.read_text(encoding="utf-8").splitlines()[path_line - 1])[1]
        return module.file.parent / path
    for file in (module.folder / f"{name}.rs", module.folder / name / "mod.rs"):
        if file.exists():
            return file
    return None


def load(file, parent=None, chosen=False):
    inside = parent is None or chosen or file.name == "mod.rs"
    module = Module(file.resolve(), file.parent if inside else file.with_suffix(""), parent)
    read(module, tokens(file.read_text(encoding="utf-8")))
    return module


def find(module, path, inner=False, strict=False, seen=frozenset()):
    """Returns what a path names, seen from a module, or from inside it alone: modules, and files that define an item."""
    if not path:
        return {module}
    name, rest = path[0], path[1:]
    if name in ("::", "crate", "$crate", "self", "super"):
        base = {"::": None, "self": module, "super": module.parent}.get(name, module.root)
        return find(base, rest, True, False, seen) if base else set()
    # A macro that is called, `name!`, is no function of that name; imports have both.
    plain, called = name.rstrip("!"), name.endswith("!")
    defined = name in module.defined or f"{name}!" in module.defined
    found = {module.file} if defined else set()
    for child in module.children.get(name, []):
        found |= find(child, rest, True, False, seen)
    for target in module.imports.get(plain, []):
        if id(target) not in seen:
            found |= find(module, [*target[:-1], target[-1] + "!" * called, *rest], False, False, seen | {id(target)})
    known = defined or name in module.children or plain in module.imports
    for target in module.globs if not known else []:
        if id(target) not in seen:
            for holder in find(module, target, False, True, seen | {id(target)}):
                if isinstance(holder, Module):
                    found |= find(holder, path, True, True, seen | {id(target)})
    # A name that nothing explains is the module's; one that a glob import might bring is nobody's.
    return found or ({module.file} if inner and not (known or strict or called) else set())


def arrows(roots):
    """Returns {file: {file it names: line}} of crates that begin with the files `roots`."""
    graph = {}

    def walk(module):
        out = graph.setdefault(module.file, {})
        for path, line in module.paths:
            for file in find(module, path):
                if not isinstance(file, Module) and file != module.file:
                    out[file] = min(out.get(file, line), line)
        for children in module.children.values():
            for child in children:
                walk(child)

    for root in roots:
        walk(load(root))
    return graph


def circles(graph):
    """Returns the sets of files that reach one another, each sorted."""
    reached = {}
    for file in graph:
        found, left = set(), [file]
        while left:
            new = graph.get(left.pop(), {}).keys() - found
            found |= new
            left += new
        reached[file] = found
    groups = {frozenset(b for b in reached[a] if a in reached[b]) for a in graph if a in reached[a]}
    return sorted(map(sorted, groups))


def crates(root):
    """Returns (package, [first source files]) of every manifest under git."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", "Cargo.toml", "**/Cargo.toml"], cwd=root, check=True, capture_output=True, text=True).stdout
    for manifest in map(root.joinpath, listed.split()):
        content = tomllib.loads(manifest.read_text(encoding="utf-8"))
        if "package" not in content:
            continue
        folder = manifest.parent
        named = [content.get("lib", {}).get("path", "src/lib.rs"), "src/main.rs", *(b["path"] for b in content.get("bin", []) if "path" in b)]
        files = [folder / name for name in named] + sorted((folder / "src/bin").glob("*.rs"))
        yield content["package"]["name"], [file for file in dict.fromkeys(files) if file.exists()]


def check(root):
    """Prints the circles of every crate; returns whether there is one."""
    bad = False
    for package, files in crates(root):
        graph = arrows(files)
        for group in circles(graph):
            bad = True
            print(f"{package}: an import circle of {len(group)} files")
            for a in group:
                for b in sorted(graph[a].keys() & set(group)):
                    print(f"    {a.relative_to(root)}:{graph[a][b]} → {b.relative_to(root)}")
    return bad


PLANTED = {  # what each small crate shows: (its files, whether there is a circle)
    "two files that name each other": ({"lib": "mod a; mod b;", "a": "use crate::b::B;\npub struct A(B);", "b": "pub struct B;\nfn f(_: &super::a::A) {}"}, True),
    "three files": ({"lib": "mod a; mod b; mod c;", "a": "use crate::b::B;\npub struct A(B);", "b": "pub struct B(crate::c::C);", "c": "pub struct C;\ntype T = super::a::A;"}, True),
    "a parent that uses its child, which uses the parent": ({"lib": "mod a;\npub struct P;\nfn f() { a::g(); }", "a": "pub fn g() { let _ = super::P; }"}, True),
    "through a re-export": ({"lib": "mod a; mod b;\npub use a::A;", "a": "use crate::b::B;\npub struct A(B);", "b": "pub struct B;\nfn f(_: crate::A) {}"}, True),
    "through a glob": ({"lib": "mod a; mod b;", "a": "use crate::b::*;\npub struct A(B);", "b": "pub struct B;\nuse super::a::A as Other;"}, True),
    "through an imported module": ({"lib": "mod a; mod b;", "a": "use crate::b;\npub struct A(b::B);", "b": "pub struct B;\nfn f() { let _: Option<crate::a::A> = None; }"}, True),
    "a parent's own use of what it re-exports": ({"lib": "mod a;\npub use a::A;\npub struct P(A);", "a": "use super::P;\npub struct A;\nfn f(_: P) {}"}, True),
    "a parent that declares and re-exports": ({"lib": "mod a;\npub use a::A;\npub struct P;", "a": "use super::P;\npub struct A(P);"}, False),
    "a macro of a child": ({"lib": "mod a;\npub struct P;\nfn f() { a::m!() }", "a": "macro_rules! m { () => {} }\npub(crate) use m;\nfn g() { let _ = super::P; }"}, True),
    "a macro with the name of a function": ({"lib": "mod a;\npub use a::write;\npub struct P;\nfn f() { write!(x) }", "a": "pub fn write() { let _ = super::P; }"}, False),
    "tests apart": ({"lib": "mod a; mod b;", "a": "use crate::b::B;\npub struct A(B);", "b": "pub struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }"}, False),
    "comments and texts apart": ({"lib": "mod a; mod b;", "a": "use crate::b::B;\npub struct A(B);", "b": "/// [`crate::a::A`]\npub struct B;\nconst S: &str = \"crate::a::A\"; // crate::a::A"}, False),
    "siblings that share a parent's item": ({"lib": "mod a; mod b;\npub struct P;", "a": "use crate::P;\npub struct A(P);", "b": "use crate::{P, a::A};\npub struct B(P, A);"}, False),
}


def self_test():
    for name, (files, circle) in PLANTED.items():
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder).resolve()
            for file, text in files.items():
                (source / f"{file}.rs").write_text(text, encoding="utf-8")
            graph = arrows([source / "lib.rs"])
            if bool(circles(graph)) != circle:
                sys.exit(f"circles: self-test: {name}: {'no circle was found' if circle else 'a circle was found'}: {graph}")


def main():
    self_test()
    if "--self-test" in sys.argv:
        print(f"circles: self-test: {len(PLANTED)} small crates judged rightly")
        return 0
    return int(check(ROOT))


if __name__ == "__main__":
    sys.exit(main())
