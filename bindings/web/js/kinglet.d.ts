/** Kinglet: text classifiers that run anywhere, here in WebAssembly. */

/** The loaded module. */
export interface Loaded {
  /** Name of the backend: "wasm-simd128" or "scalar". Both return the same bits. */
  readonly backend: string;
  /** Returns the bytes of memory of the module, including models and engines. */
  memoryBytes(): number;
}

/**
 * Loads the module, which is required before a classifier can be created. Later calls return what the first one loaded.
 *
 * @param options.simd Whether to load the SIMD module; by default, if the engine supports it.
 * @throws {Error} if the module cannot be loaded.
 */
export function load(options?: { simd?: boolean }): Promise<Loaded>;

/** Returns whether this engine supports 128-bit SIMD. */
export function hasSimd(): boolean;

/** A label with its score. */
export interface Prediction {
  label: string;
  /** Probability, 0 to 1: calibrated if the model is. */
  score: number;
}

/** The answer for a text. */
export interface Answer {
  /** The most likely label, or null if the model is unsure, the text empty or unknown, or no label applies. */
  label: string | null;
  /** The labels, most likely first: of a model of which any number may apply, all of them; of another one, at most one. */
  labels: string[];
  /** Probability of the most likely label, also if unsure. */
  score: number;
  /** Whether no label is likely enough, or the text is empty or unknown. Models without calibration are otherwise always sure, and so are models of which any number of labels may apply. */
  unsure: boolean;
  /** Whether the text has no letter, digit or symbol. */
  empty: boolean;
  /** Whether the text has letters, digits or symbols, but none that the model knows. */
  unknown: boolean;
  /** Whether probabilities are calibrated. */
  calibrated: boolean;
  /** The most likely labels, most likely first. */
  top: Prediction[];
  /** The labels expected to include the correct one, most likely first, or null without calibration. */
  set: string[] | null;
  /** Number of tokens that the answer covers, including the end of text. */
  tokens: number;
  /** Hash of the exact scores, 8 hexadecimal digits: the same on every target. */
  fingerprint: string;
}

/** A model, ready to classify texts one after the other. */
export class Classifier {
  /**
   * @param model The bytes of a `model.kinglet` file; they are checked completely and copied.
   * @throws {TypeError | Error} if they are not an intact bundle; the message says why.
   */
  constructor(model: Uint8Array | ArrayBuffer);
  /**
   * Classifies a text.
   *
   * @param text A string, or bytes of UTF-8.
   * @param top Number of most likely labels to return; default 5.
   */
  classify(text: string | Uint8Array, top?: number): Answer;
  /** Returns the scores before softmax, one per label. */
  scores(text: string | Uint8Array): Float32Array;
  /** Returns the fingerprint of the scores: 8 hexadecimal digits. */
  fingerprint(text: string | Uint8Array): string;
  /** Opens a stream for a text of any length that arrives in parts. Any number of streams may be open. */
  stream(): Stream;
  /** The names of all labels. */
  readonly labels: string[];
  /** Whether any number of labels may apply to a text. */
  readonly multiLabel: boolean;
  /** Whether probabilities are calibrated. */
  readonly calibrated: boolean;
  /** Bytes of the model. */
  readonly modelBytes: number;
  /** Bytes of memory for classifying, in addition to the model, for texts of any length. */
  readonly arenaBytes: number;
  /** Frees the memory at once; otherwise, the garbage collector does. */
  free(): void;
  [Symbol.dispose](): void;
}

/** A model that embeds, for texts one after the other. */
export class Embedder {
  /**
   * @param model The bytes of a `model.kinglet` file of a model that embeds; they are checked completely and copied.
   * @throws {TypeError | Error} if they are not an intact bundle, or the model classifies; the message says why.
   */
  constructor(model: Uint8Array | ArrayBuffer);
  /**
   * Returns the vector of a text. Its length is 1, so the sum of the products of two is their cosine; a text the model says
   * nothing about has zeros. The bits are the same on every target.
   *
   * @param text A string, or bytes of UTF-8.
   */
  embed(text: string | Uint8Array): Float32Array;
  /** Returns the fingerprint of the vector: 8 hexadecimal digits. */
  fingerprint(text: string | Uint8Array): string;
  /** Number of values of a vector. */
  readonly dimension: number;
  /** Bytes of the model. */
  readonly modelBytes: number;
  /** Bytes of memory for embedding, in addition to the model, for texts of any length. */
  readonly arenaBytes: number;
  /** Frees the memory at once; otherwise, the garbage collector does. */
  free(): void;
  [Symbol.dispose](): void;
}

/** One text after another, each in parts; memory does not grow with the text. */
export class Stream {
  private constructor();
  /** Pushes the next part. Bytes may be cut anywhere, even within a character; strings not within a surrogate pair. */
  push(part: string | Uint8Array): void;
  /** Returns the answer for the text so far, except for its last words; undefined before there is one. */
  snapshot(top?: number): Answer | undefined;
  /** Ends the text and returns its answer, identical to that of the text at once; the stream is then ready for the next text. */
  finish(top?: number): Answer;
  /** Discards the text so far. */
  reset(): void;
  /** Number of final tokens. */
  readonly tokens: number;
  /** Frees the memory at once; otherwise, the garbage collector does. */
  free(): void;
  [Symbol.dispose](): void;
}
