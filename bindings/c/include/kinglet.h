/* Kinglet: text in, label out. https://github.com/kinglet-rs/kinglet
 *
 * Two layers:
 *
 *  - kinglet_model: opens a file model.kinglet and classifies texts, on any number of threads. On the heap.
 *  - kinglet_engine: takes one text in parts and gives its scores. Either of a model, or inside memory of the caller's with a
 *    bundle in memory or flash: then nothing allocates, and the library can be built without an operating system.
 *
 * Every function that can fail answers a kinglet_status: KINGLET_STATUS_OK, which is 0, or why not. kinglet_status_message says it
 * in words, kinglet_last_error (of the library with std) with the numbers of the case. Where a function fails, results are
 * either left alone or zero.
 *
 * What is checked: null pointers, addresses that are not aligned, lengths, numbers of labels, names, every byte of a bundle.
 * What only the caller can know, and has to keep to:
 *
 *  - A pointer with a length points to as many elements. Results go to memory that no other argument of the call names.
 *  - A handle was given by this library and not freed. A model may be used by any number of threads at the same time, an
 *    engine by one thread at a time.
 *  - Memory and bundle that were given to kinglet_engine_init stay where and as they are while the engine is in use.
 *
 * Texts are UTF-8 with a length; they need no zero byte at the end. Scores are 32-bit floats, one a label, the same bits on
 * every processor. Nothing is printed, and no C++ exception or Rust panic leaves the library.
 */


#ifndef KINGLET_H
#define KINGLET_H

/* Made by bindings/c/make-header (cbindgen 0.29.2) from bindings/c/src. Do not edit: change the sources and run it. */

#include <stddef.h>
#include <stdint.h>
/* The functions of models, which need a heap, threads and files, are in the library unless it was built without std: say so
   before this header is included. */
#if !defined(KINGLET_NO_STD)
#define KINGLET_STD 1
#endif


// Version of this interface. It grows when something that a compiled program relies on changes: compare it with
// `kinglet_abi_version()`, which is the library's.
#define KINGLET_ABI_VERSION 1

// Option: trust the checksums of the bundle without computing them, for a model that was checked before, such as one in the
// firmware's own flash. Damage may then give wrong scores, never a read outside the bundle.
#define KINGLET_UNVERIFIED 1

// Most tokens that go through the layers together: more need memory and gain nothing.
#define KINGLET_MAX_CHUNK 65536

// What memory for an engine is aligned to.
#define KINGLET_ENGINE_ALIGN 8

// Memory of as many bytes as `kinglet info` prints under "memory beyond the file" in the line "all", and of this many more, is
// enough for an engine, on every processor. `kinglet_engine_bytes` returns the exact number.
#define KINGLET_ENGINE_EXTRA 64

// What a function answers: 0 when all went well.
enum kinglet_status
#ifdef __cplusplus
  : int32_t
#endif // __cplusplus
 {
  // All went well.
  KINGLET_STATUS_OK = 0,
  // A pointer is null that must not be.
  KINGLET_STATUS_NULL_POINTER = 1,
  // A pointer is not aligned for what it points to; memory for an engine must be a multiple of KINGLET_ENGINE_ALIGN.
  KINGLET_STATUS_MISALIGNED = 2,
  // A length is not the one that is asked for, such as that of the scores, or more than memory can have.
  KINGLET_STATUS_WRONG_LENGTH = 3,
  // An option, or another argument, has a value that this library does not know.
  KINGLET_STATUS_INVALID_ARGUMENT = 4,
  // This library, or this processor, has no backend of that name.
  KINGLET_STATUS_UNKNOWN_BACKEND = 5,
  // The memory for an engine is too small: `kinglet_engine_bytes` says how much it needs.
  KINGLET_STATUS_ARENA_TOO_SMALL = 6,
  // There is no label of that number.
  KINGLET_STATUS_NO_SUCH_LABEL = 7,
  // The model is not calibrated, so it has no label sets.
  KINGLET_STATUS_NOT_CALIBRATED = 8,
  // The text has more tokens than can be counted (2 to the 32nd less 1).
  KINGLET_STATUS_TEXT_TOO_LONG = 9,
  // The model gave a score that is no finite number, or was asked about such scores.
  KINGLET_STATUS_NOT_A_NUMBER = 10,
  // The bytes are not those of a bundle: they do not begin as one.
  KINGLET_STATUS_NOT_A_BUNDLE = 20,
  // The bundle does not begin at an address that is a multiple of 4.
  KINGLET_STATUS_BUNDLE_MISALIGNED = 21,
  // The bundle is of another version of the format than this library reads.
  KINGLET_STATUS_BUNDLE_VERSION = 22,
  // The bundle is shorter or longer than it says.
  KINGLET_STATUS_BUNDLE_LENGTH = 23,
  // A checksum of the bundle is wrong: bytes were changed.
  KINGLET_STATUS_BUNDLE_CHECKSUM = 24,
  // The bundle's contents are not as the format says.
  KINGLET_STATUS_BUNDLE_DAMAGED = 25,
  // The bundle is whole, but holds something that this library does not run.
  KINGLET_STATUS_BUNDLE_UNSUPPORTED = 26,
  // The file cannot be opened or read.
  KINGLET_STATUS_FILE = 30,
  // There is not enough memory.
  KINGLET_STATUS_OUT_OF_MEMORY = 31,
  // The library has a fault, which was kept from spreading. Please report it.
  KINGLET_STATUS_INTERNAL = 32,
};
#ifndef __cplusplus
typedef int32_t kinglet_status;
#endif // __cplusplus

// Runs a model on one text after the other. One thread at a time may use it.
typedef struct kinglet_engine kinglet_engine;

#if defined(KINGLET_STD)
// A model, ready to classify. Any number of threads may use it at the same time.
typedef struct kinglet_model kinglet_model;
#endif

// How a model is run. All zeros are the defaults; so is a null pointer in place of options.
typedef struct kinglet_options {
  // Backend by name: "scalar", "x86-avx2", "x86-avx512vnni", "aarch64-neon", "aarch64-dotprod". Null: the fastest that this
  // processor has. Ends with a zero byte; read during the call alone.
  const char *backend;
  // Tokens that go through the layers together: fewer need less memory and more time; the scores are the same. At most
  // KINGLET_MAX_CHUNK; 0: 48.
  uint32_t chunk;
  // 0 or KINGLET_UNVERIFIED.
  uint32_t flags;
} kinglet_options;

// What is said about a text.
typedef struct kinglet_answer {
  // The likeliest label, from 0; of equal ones the lowest.
  size_t label;
  // Its probability, 0 to 1; calibrated if the model is.
  float probability;
  // Whether the label is not likely enough to be given as the answer: 1 or 0. Always 0 when the model is not calibrated.
  uint32_t unsure;
} kinglet_answer;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// KINGLET_ABI_VERSION of the library that runs.
uint32_t kinglet_abi_version(void);

// The library's version, such as "0.1.0".
const char *kinglet_version(void);

// The fingerprint of scores: the CRC-32C of their bytes, each a little-endian 32-bit float. Equal scores have equal
// fingerprints on every processor; `kinglet fingerprint` prints them.
//
// `scores`: `count` floats, as an engine gave them.
kinglet_status kinglet_fingerprint(const float *scores,
                                   size_t count,
                                   uint32_t *fingerprint);

// What a status means, in a sentence without the numbers of the case. Never null; of a number that is no status it says so.
const char *kinglet_status_message(int32_t status);

#if defined(KINGLET_STD)
// Why the last call of this thread that failed did so, with the numbers of the case; "" if none did. Stays readable until
// the next call of this thread that fails, or the thread's end.
const char *kinglet_last_error(void);
#endif

// Bytes of memory that `kinglet_engine_init` needs for this bundle, wherever in memory it begins. Reads the bundle's configuration
// alone; the engine checks the rest.
//
// `chunk`: as in kinglet_options, 0 for the default. `bytes`: gets the number; SIZE_MAX when it is more than can be addressed.
kinglet_status kinglet_engine_bytes(const uint8_t *bundle,
                                    size_t bundle_bytes,
                                    uint32_t chunk,
                                    size_t *bytes);

// Makes an engine inside memory of the caller's, for a bundle in memory or flash. Allocates nothing; there is nothing to free:
// when the engine is no longer used, the memory is the caller's again.
//
// `memory`: `memory_bytes` bytes, at least as many as `kinglet_engine_bytes` says, at a multiple of KINGLET_ENGINE_ALIGN; what they
// hold does not matter. Until the engine is no longer used they belong to it and stay where they are.
// `bundle`: the bytes of a file model.kinglet, at a multiple of 4 (64 is better). They are checked completely and read in place; they
// stay as they are until the engine is no longer used.
// `options`: null for the defaults.
// `engine`: gets the engine; null when there is none.
kinglet_status kinglet_engine_init(void *memory,
                                   size_t memory_bytes,
                                   const uint8_t *bundle,
                                   size_t bundle_bytes,
                                   const struct kinglet_options *options,
                                   struct kinglet_engine **engine);

// Number of labels, the length of scores and probabilities; 0 of null.
size_t kinglet_engine_num_labels(const struct kinglet_engine *engine);

// The name of a label, from the bundle: UTF-8 that does NOT end with a zero byte. Print it with "%.*s".
//
// `label`: from 0. `name`, `name_bytes`: get where it is, for as long as the bundle is there, and its length.
kinglet_status kinglet_engine_label(const struct kinglet_engine *engine,
                                    size_t label,
                                    const char **name,
                                    size_t *name_bytes);

// Whether the model is calibrated: 1 or 0, 0 of null. Else probabilities are a plain softmax, no answer is unsure and there
// are no label sets.
uint32_t kinglet_engine_calibrated(const struct kinglet_engine *engine);

// Tokens of the text so far that are certain by now; 0 of null.
uint64_t kinglet_engine_tokens(const struct kinglet_engine *engine);

// The name of the backend that runs, as in kinglet_options: it is written to `name`, with a zero byte behind, cut to fit.
//
// `room`: bytes of `name`, at least 1.
kinglet_status kinglet_engine_backend(const struct kinglet_engine *engine,
                                      char *name,
                                      size_t room);

// Takes the next bytes of the text. The text may be cut anywhere, even inside a character; the scores are, bit for bit, those
// of the text at once. Invalid UTF-8 is read as U+FFFD.
//
// When it fails, the text cannot be scored, and every call says so until `kinglet_engine_reset`.
//
// `text`: `text_bytes` bytes of UTF-8; zero bytes are part of the text. Null is fine where there are none.
kinglet_status kinglet_engine_push(struct kinglet_engine *engine,
                                   const char *text,
                                   size_t text_bytes);

// The scores of the text so far, over the tokens whose neighbours have all been seen. What is pushed later is scored as if
// there had been no snapshot.
//
// `scores`: room for `count` floats, the number of labels; gets the scores before softmax.
// `tokens`: gets the number of tokens that they are of; 0 when there is none yet, and the scores are zeros then.
kinglet_status kinglet_engine_snapshot(struct kinglet_engine *engine,
                                       float *scores,
                                       size_t count,
                                       uint32_t *tokens);

// Ends the text and gives its scores; the engine is then at the beginning of the next text. An empty text has scores, too.
//
// `scores`: room for `count` floats, the number of labels; gets the scores before softmax. When `scores` is null or `count` wrong, the
// text goes on.
kinglet_status kinglet_engine_finish(struct kinglet_engine *engine,
                                     float *scores,
                                     size_t count);

// Forgets the text so far.
kinglet_status kinglet_engine_reset(struct kinglet_engine *engine);

// The probability of each label: softmax of the scores, with the model's temperature if it is calibrated.
//
// `scores`: `count` floats, the number of labels, as `kinglet_engine_finish` or `kinglet_engine_snapshot` gave them.
// `probabilities`: room for as many; must not overlap `scores`.
kinglet_status kinglet_engine_probabilities(const struct kinglet_engine *engine,
                                            const float *scores,
                                            size_t count,
                                            float *probabilities);

// What probabilities say: the likeliest label, and whether that is sure enough.
//
// `probabilities`: `count` floats, the number of labels, as `kinglet_engine_probabilities` gave them. `answer`: gets the answer.
kinglet_status kinglet_engine_answer(const struct kinglet_engine *engine,
                                     const float *probabilities,
                                     size_t count,
                                     struct kinglet_answer *answer);

// The labels among which the right one is to be expected (a conformal set). Fails when the model is not calibrated.
//
// `probabilities`: `count` floats, the number of labels, as `kinglet_engine_probabilities` gave them.
// `members`: room for `count` bytes; gets a 1 for each label of the set, a 0 for the others.
kinglet_status kinglet_engine_set(const struct kinglet_engine *engine,
                                  const float *probabilities,
                                  size_t count,
                                  uint8_t *members);

#if defined(KINGLET_STD)
// Opens a file model.kinglet: maps it into memory and checks all of it. It must not be changed while the model is in use; a
// file that replaces it does no harm.
//
// `path`: ends with a zero byte; on Windows UTF-8. `options`: null for the defaults.
// `model`: gets the model, to be freed with `kinglet_model_free`; null when there is none.
kinglet_status kinglet_model_open(const char *path,
                                  const struct kinglet_options *options,
                                  struct kinglet_model **model);
#endif

#if defined(KINGLET_STD)
// Makes a model of the bytes of a file model.kinglet, which are copied and checked completely.
//
// `bundle`: `bundle_bytes` bytes at any address, free to go when the call returns. `options`: null for the defaults.
// `model`: gets the model, to be freed with `kinglet_model_free`; null when there is none.
kinglet_status kinglet_model_from_bytes(const uint8_t *bundle,
                                        size_t bundle_bytes,
                                        const struct kinglet_options *options,
                                        struct kinglet_model **model);
#endif

#if defined(KINGLET_STD)
// Frees a model. Engines that it made go on working until they are freed themselves. Does nothing with null. Afterwards the
// handle is no more.
void kinglet_model_free(struct kinglet_model *model);
#endif

#if defined(KINGLET_STD)
// Number of labels; 0 of null.
size_t kinglet_model_num_labels(const struct kinglet_model *model);
#endif

#if defined(KINGLET_STD)
// The name of a label, from 0: UTF-8 with a zero byte behind, for as long as the model is there. Null when there is no such label.
const char *kinglet_model_label(const struct kinglet_model *model,
                                size_t label);
#endif

#if defined(KINGLET_STD)
// The name of the backend that runs, as in kinglet_options, for as long as the model is there; null of null.
const char *kinglet_model_backend(const struct kinglet_model *model);
#endif

#if defined(KINGLET_STD)
// Classifies one text.
//
// `text`: `text_bytes` bytes of UTF-8, invalid parts of which are read as U+FFFD. Null is fine where there are none.
// `answer`: gets the answer.
kinglet_status kinglet_model_classify(const struct kinglet_model *model,
                                      const char *text,
                                      size_t text_bytes,
                                      struct kinglet_answer *answer);
#endif

#if defined(KINGLET_STD)
// Makes an engine of the model's, for a text that comes in parts. It is on the heap: free it with `kinglet_engine_free`, before the
// model or after it.
//
// `engine`: gets the engine; null when there is none.
kinglet_status kinglet_model_engine(const struct kinglet_model *model,
                                    struct kinglet_engine **engine);
#endif

#if defined(KINGLET_STD)
// Frees an engine that `kinglet_model_engine` made; its text is forgotten. Does nothing with null, nor with an engine in
// the caller's own memory, which has nothing to free. Afterwards the handle is no more.
void kinglet_engine_free(struct kinglet_engine *engine);
#endif

#if defined(KINGLET_STD)
// Classifies many texts, shared among threads. The results are those of one text after the other, whatever the number of threads.
// When a text fails, the status and the message are those of the first that does; results of the others may be there or not.
//
// `texts`, `text_bytes`: `count` pointers and lengths, each as in `kinglet_model_classify`.
// `threads`: at most this many; 0: as many as the machine has processors. Where threads cannot be started, there are fewer.
// `scores`: room for `scores_count` floats, texts times labels; gets the scores before softmax, text after text. Null, with a
// `scores_count` of 0, when they are not wanted.
// `answers`: room for `count` answers; null when they are not wanted.
kinglet_status kinglet_model_batch(const struct kinglet_model *model,
                                   const char *const *texts,
                                   const size_t *text_bytes,
                                   size_t count,
                                   size_t threads,
                                   float *scores,
                                   size_t scores_count,
                                   struct kinglet_answer *answers);
#endif

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KINGLET_H */
