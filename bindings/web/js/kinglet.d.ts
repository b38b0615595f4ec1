/** Kinglet: text classifiers that run anywhere, here in WebAssembly. */

/** What the loaded module is. */
export interface Loaded {
  /** Name of the backend: "wasm-simd128" or "scalar". Both give the same bits. */
  readonly backend: string;
  /** Bytes of memory that the module has by now, models and engines included. */
  memoryBytes(): number;
}

/**
 * Loads the module; before that no classifier can be made. Later calls give what the first one loaded.
 *
 * @param options.simd Whether to load the module with vectors: unless given, where the engine has them.
 * @throws {Error} when the module cannot be loaded.
 */
export function load(options?: { simd?: boolean }): Promise<Loaded>;

/** Whether this engine has vectors of 128 bits. */
export function hasSimd(): boolean;

/** A label with its score. */
export interface Prediction {
  label: string;
  /** Probability, 0 to 1: calibrated if the model is. */
  score: number;
}

/** What a model says about a text. */
export interface Answer {
  /** The likeliest label, or null when the model is not sure enough. */
  label: string | null;
  /** Probability of the likeliest label, also when unsure. */
  score: number;
  /** Whether no label is likely enough. Models without calibration are always sure. */
  unsure: boolean;
  /** Whether probabilities are calibrated. */
  calibrated: boolean;
  /** The likeliest labels, the likeliest first. */
  top: Prediction[];
  /** The labels to expect the right one among, the likeliest first, or null of a model without calibration. */
  set: string[] | null;
  /** Tokens that the answer is of, the end of the text included. */
  tokens: number;
  /** 8 hexadecimal digits that name the exact scores: the same on every target. */
  fingerprint: string;
}

/** A model, ready to classify texts one after the other. */
export class Classifier {
  /**
   * @param model The bytes of a file `model.kinglet`; they are checked completely and copied.
   * @throws {TypeError | Error} when they are not a whole, undamaged bundle; the message says why.
   */
  constructor(model: Uint8Array | ArrayBuffer);
  /**
   * The answer for a text.
   *
   * @param text A string, or bytes of UTF-8.
   * @param top How many of the likeliest labels to give, 5 unless given.
   */
  classify(text: string | Uint8Array, top?: number): Answer;
  /** The scores before softmax, one a label. */
  scores(text: string | Uint8Array): Float32Array;
  /** The fingerprint of the scores: 8 hexadecimal digits. */
  fingerprint(text: string | Uint8Array): string;
  /** A text of any length that comes in parts. Any number of streams may be open. */
  stream(): Stream;
  /** The names of all labels. */
  readonly labels: string[];
  /** Whether probabilities are calibrated. */
  readonly calibrated: boolean;
  /** Bytes of the model. */
  readonly modelBytes: number;
  /** Bytes of memory that classifying takes beside the model, whatever the length of the text. */
  readonly arenaBytes: number;
  /** Gives the memory back at once; without, the garbage collector does. */
  free(): void;
  [Symbol.dispose](): void;
}

/** One text after another, each in parts; memory does not grow with the text. */
export class Stream {
  private constructor();
  /** Takes the next part. Bytes may be cut anywhere, also within a character; strings not within a surrogate pair. */
  push(part: string | Uint8Array): void;
  /** The answer for the text so far, but for its last words; undefined before there is one. */
  snapshot(top?: number): Answer | undefined;
  /** Ends the text and gives the answer that the text at once would have; the stream is then ready for the next text. */
  finish(top?: number): Answer;
  /** Forgets the text so far. */
  reset(): void;
  /** Tokens that are certain by now. */
  readonly tokens: number;
  /** Gives the memory back at once; without, the garbage collector does. */
  free(): void;
  [Symbol.dispose](): void;
}
