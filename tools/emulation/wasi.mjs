// Runs a program for WASI in node, with the files of this machine: node --no-warnings tools/emulation/wasi.mjs PROGRAM.wasm [ARGS...]
import { readFile } from "node:fs/promises";
import { argv, cwd, env } from "node:process";
import { WASI } from "node:wasi";

const [, , program, ...args] = argv;
const wasi = new WASI({ version: "preview1", args: [program, ...args], env, preopens: { "/": "/", ".": cwd() } });
const { instance } = await WebAssembly.instantiate(await readFile(program), wasi.getImportObject());
process.exitCode = wasi.start(instance);
