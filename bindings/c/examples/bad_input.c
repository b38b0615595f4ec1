/* Everything that can be wrong with what a program passes in, and what the library answers. Prints a line for each case; exit code
 * 1 when an answer is not the one expected.
 *
 *   ./bad_input MODEL FOLDER [EMBEDDER]    FOLDER: a folder where it may write; EMBEDDER: a model that embeds
 *   ./bad_input MODEL memory               with too little memory for a chunk of KINGLET_MAX_CHUNK tokens (ulimit -v)
 *
 * With KINGLET_NO_STD it tests the functions that the library without std has.
 */
#include <kinglet.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Damage is tried at this many places of the bundle. */
#define PLACES 97

static int bad = 0;

static void expect(kinglet_status want, kinglet_status got, const char *what) {
  const char *why = kinglet_status_message(got);
#ifdef KINGLET_STD
  if (got != KINGLET_STATUS_OK) {
    why = kinglet_last_error();
    if (why[0] == 0) bad = 1, printf("FAILED  %s: no message\n", what);
  }
#endif
  if (got != want) bad = 1;
  printf("%s  %s: %d, %s\n", got == want ? "ok    " : "FAILED", what, (int)got, why);
}

static void expect_true(int holds, const char *what) {
  if (!holds) bad = 1;
  printf("%s  %s\n", holds ? "ok    " : "FAILED", what);
}

static void *room(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory == NULL) exit(2);
  return memory;
}

static uint8_t *read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  uint8_t *bytes;
  long end;
  if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (end = ftell(file)) <= 0 || fseek(file, 0, SEEK_SET) != 0) exit(2);
  bytes = (uint8_t *)room((size_t)end + 8);
  *length = fread(bytes, 1, (size_t)end, file);
  fclose(file);
  if (*length != (size_t)end) exit(2);
  return bytes;
}

static void messages(void) {
  const char *unknown = kinglet_status_message(-1);
  int status, other, known = 0, same = 0;
  for (status = 0; status < 100; status++) {
    const char *message = kinglet_status_message(status);
    if (strcmp(message, unknown) == 0) continue;
    known++;
    for (other = 0; other < status; other++) same += strcmp(message, kinglet_status_message(other)) == 0;
  }
  expect_true(known == 23 && same == 0, "every status has its own message");
  expect_true(strcmp(kinglet_status_message(INT32_MIN), unknown) == 0, "a number that is no status has a message that says so");
}

/* Bundles that are not whole. `bundle` is as it was afterwards. */
static void damaged(uint8_t *bundle, size_t length, void *memory, size_t bytes) {
  static const char text[] = "this is a text file, long enough to hold a header of sixty-four bytes.";
  kinglet_engine *engine;
  kinglet_options unverified = {NULL, 0, KINGLET_UNVERIFIED};
  float *scores;
  size_t i, undetected = 0, labels;
  uint64_t header[8] = {0};

#define INIT(data, size) kinglet_engine_init(memory, bytes, data, size, NULL, &engine)
  expect(KINGLET_STATUS_NULL_POINTER, INIT(NULL, length), "a bundle that is null");
  expect(KINGLET_STATUS_NOT_A_BUNDLE, INIT(bundle, 0), "a bundle of no bytes");
  expect(KINGLET_STATUS_WRONG_LENGTH, INIT(bundle, SIZE_MAX), "a bundle longer than memory");
  memcpy(header, text, sizeof header);
  expect(KINGLET_STATUS_NOT_A_BUNDLE, INIT((const uint8_t *)header, sizeof header), "a text file as bundle");
  expect(KINGLET_STATUS_BUNDLE_LENGTH, INIT(bundle, length - 1), "a bundle that lacks its last byte");
  expect(KINGLET_STATUS_BUNDLE_LENGTH, INIT(bundle, 63), "a bundle cut inside its header");
  expect(KINGLET_STATUS_BUNDLE_LENGTH, INIT(bundle, length + 1), "a bundle with a byte too many");
  memmove(bundle + 1, bundle, length);
  expect(KINGLET_STATUS_BUNDLE_MISALIGNED, INIT(bundle + 1, length), "a bundle at an odd address");
  memmove(bundle, bundle + 1, length);
  bundle[8]++;
  expect(KINGLET_STATUS_BUNDLE_VERSION, INIT(bundle, length), "a bundle of the next format version");
  bundle[8]--;
  bundle[17] ^= 1;
  expect(KINGLET_STATUS_BUNDLE_LENGTH, INIT(bundle, length), "a bundle that says another length");
  bundle[17] ^= 1;
  bundle[length / 3] ^= 4;
  expect(KINGLET_STATUS_BUNDLE_CHECKSUM, INIT(bundle, length), "a bundle with a changed weight");
  expect_true(engine == NULL, "there is no engine then");
  expect(KINGLET_STATUS_OK, kinglet_engine_init(memory, bytes, bundle, length, &unverified, &engine), "the same, checksums believed");
  bundle[length / 3] ^= 4;

  for (i = 0; i < PLACES; i++) {
    uint8_t *at = bundle + length / PLACES * i + i % 8;
    *at ^= (uint8_t)(1 << i % 8);
    undetected += INIT(bundle, length) == KINGLET_STATUS_OK;
    /* Where checksums are believed damage may pass; then there are scores, or an error. Memory checkers look on. */
    if (kinglet_engine_init(memory, bytes, bundle, length, &unverified, &engine) == KINGLET_STATUS_OK) {
      labels = kinglet_engine_num_labels(engine);
      scores = (float *)room(labels * sizeof *scores);
      kinglet_engine_push(engine, "wake me", 7);
      kinglet_engine_finish(engine, scores, labels);
      free(scores);
    }
    *at ^= (uint8_t)(1 << i % 8);
  }
  expect_true(undetected == 0, "a changed bit is found, wherever it is");
#undef INIT
}

/* Memory and options for an engine. */
static void inits(const uint8_t *bundle, size_t length, uint8_t *memory, size_t bytes) {
  kinglet_engine *engine = NULL;
  kinglet_options options = {NULL, 0, 0};
  size_t need = 0;

  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_bytes(NULL, length, 0, &need), "bytes of a bundle that is null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_bytes(bundle, length, 0, NULL), "bytes to nowhere");
  expect(KINGLET_STATUS_BUNDLE_LENGTH, kinglet_engine_bytes(bundle, 100, 0, &need), "bytes of a cut bundle");
  expect(KINGLET_STATUS_INVALID_ARGUMENT, kinglet_engine_bytes(bundle, length, KINGLET_MAX_CHUNK + 1, &need), "a chunk too large");
  expect(KINGLET_STATUS_OK, kinglet_engine_bytes(bundle, length, KINGLET_MAX_CHUNK, &need), "the largest chunk");
  expect(KINGLET_STATUS_OK, kinglet_engine_bytes(bundle, length, 0, &need), "bytes");
  expect_true(need == bytes, "the same number again");

  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_init(NULL, bytes, bundle, length, NULL, &engine), "memory that is null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_init(memory, bytes, bundle, length, NULL, NULL), "an engine to nowhere");
  expect(KINGLET_STATUS_ARENA_TOO_SMALL, kinglet_engine_init(memory, bytes - 1, bundle, length, NULL, &engine), "memory short of a byte");
  expect(KINGLET_STATUS_ARENA_TOO_SMALL, kinglet_engine_init(memory, 0, bundle, length, NULL, &engine), "memory of no bytes");
  expect(KINGLET_STATUS_MISALIGNED, kinglet_engine_init(memory + 1, bytes, bundle, length, NULL, &engine), "memory at an odd address");
  options.chunk = KINGLET_MAX_CHUNK;
  expect(KINGLET_STATUS_ARENA_TOO_SMALL, kinglet_engine_init(memory, bytes, bundle, length, &options, &engine), "memory for a smaller chunk");
  options.chunk = 0;
  options.flags = 6;
  expect(KINGLET_STATUS_INVALID_ARGUMENT, kinglet_engine_init(memory, bytes, bundle, length, &options, &engine), "unknown flags");
  options.flags = 0;
  options.backend = "z80-ldir";
  expect(KINGLET_STATUS_UNKNOWN_BACKEND, kinglet_engine_init(memory, bytes, bundle, length, &options, &engine), "backend of another processor");
  options.backend = "\xff";
  expect(KINGLET_STATUS_UNKNOWN_BACKEND, kinglet_engine_init(memory, bytes, bundle, length, &options, &engine), "backend by a name that is no text");
  expect_true(engine == NULL, "none of these gave an engine");
}

/* Functions of an engine. */
static void calls(kinglet_engine *engine) {
  const size_t labels = kinglet_engine_num_labels(engine);
  float *want = (float *)room((labels + 1) * sizeof *want), *got = (float *)room((labels + 1) * sizeof *got);
  float *odd = (float *)(void *)((char *)got + 1);
  uint8_t *members = (uint8_t *)room(labels);
  kinglet_answer answer;
  const char *name;
  size_t bytes;
  uint32_t tokens, print;
  char backend[4];

  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_push(NULL, "a", 1), "push: engine null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_push(engine, NULL, 1), "push: text null");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_engine_push(engine, "a", SIZE_MAX), "push: text longer than memory");
  expect(KINGLET_STATUS_OK, kinglet_engine_push(engine, NULL, 0), "push: no text at all");
  expect(KINGLET_STATUS_MISALIGNED, kinglet_engine_push((kinglet_engine *)(void *)((char *)engine + 1), "a", 1), "push: not an engine's address");

  expect(KINGLET_STATUS_OK, kinglet_engine_push(engine, " ?!", 3), "a text without a letter");
  expect(KINGLET_STATUS_OK, kinglet_engine_finish(engine, want, labels), "its scores");
  expect(KINGLET_STATUS_OK, kinglet_engine_probabilities(engine, want, labels, got), "its probabilities");
  expect(KINGLET_STATUS_OK, kinglet_engine_answer(engine, got, labels, &answer), "its answer");
  expect_true(answer.unsure == 1, "it is unsure");
  expect(KINGLET_STATUS_OK, kinglet_engine_push(engine, "\xD0\xBF\xD1\x80\xD0\xB8", 6), "a text of letters that the model does not know");
  expect(KINGLET_STATUS_OK, kinglet_engine_finish(engine, want, labels), "its scores");
  expect(KINGLET_STATUS_OK, kinglet_engine_probabilities(engine, want, labels, got), "its probabilities");
  expect(KINGLET_STATUS_OK, kinglet_engine_answer(engine, got, labels, &answer), "its answer");
  expect_true(answer.unsure == 1, "it is unsure");
  expect(KINGLET_STATUS_OK, kinglet_engine_finish(engine, want, labels), "an empty text");
  expect(KINGLET_STATUS_OK, kinglet_engine_push(engine, "wake me at seven", 16), "a text");
  expect(KINGLET_STATUS_OK, kinglet_engine_finish(engine, want, labels), "its scores");

  expect(KINGLET_STATUS_OK, kinglet_engine_push(engine, "wake me ", 8), "the same text, its begin");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_engine_snapshot(engine, got, labels - 1, &tokens), "snapshot: room for one label less");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_snapshot(engine, NULL, labels, &tokens), "snapshot: scores null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_snapshot(engine, got, labels, NULL), "snapshot: tokens null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_snapshot(NULL, got, labels, &tokens), "snapshot: engine null");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_engine_finish(engine, got, labels + 1), "finish: room for one label more");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_engine_finish(engine, got, 0), "finish: no room");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_finish(engine, NULL, labels), "finish: scores null");
  expect(KINGLET_STATUS_MISALIGNED, kinglet_engine_finish(engine, odd, labels), "finish: scores at an odd address");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_finish(NULL, got, labels), "finish: engine null");
  expect(KINGLET_STATUS_OK, kinglet_engine_push(engine, "at seven", 8), "its end");
  expect(KINGLET_STATUS_OK, kinglet_engine_finish(engine, got, labels), "its scores");
  expect_true(memcmp(got, want, labels * sizeof *got) == 0, "after all these errors the text has the same scores");

  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_engine_probabilities(engine, want, labels - 1, got), "probabilities: one score less");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_probabilities(engine, NULL, labels, got), "probabilities: scores null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_probabilities(engine, want, labels, NULL), "probabilities: place null");
  expect(KINGLET_STATUS_INVALID_ARGUMENT, kinglet_engine_probabilities(engine, got, labels, got + 1), "probabilities: over the scores");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_probabilities(NULL, want, labels, got), "probabilities: engine null");
  expect(KINGLET_STATUS_OK, kinglet_engine_probabilities(engine, want, labels, got), "probabilities");
  memset(&want[labels - 1], 0xff, sizeof *want); /* NaN */
  expect(KINGLET_STATUS_NOT_A_NUMBER, kinglet_engine_probabilities(engine, want, labels, got), "probabilities: a score that is no number");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_answer(engine, got, labels, NULL), "answer: place null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_answer(engine, NULL, labels, &answer), "answer: probabilities null");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_engine_answer(engine, got, 0, &answer), "answer: no probabilities");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_set(engine, got, labels, NULL), "set: place null");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_engine_set(engine, got, labels + 1, members), "set: one probability more");

  expect(KINGLET_STATUS_CLASSIFIES, kinglet_engine_embed(engine, got, labels), "embed: a model that classifies");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_embed(NULL, got, labels), "embed: engine null");
  expect_true(kinglet_engine_dimension(engine) == 0 && kinglet_engine_dimension(NULL) == 0, "it has no vectors");

  expect(KINGLET_STATUS_NO_SUCH_LABEL, kinglet_engine_label(engine, labels, &name, &bytes), "label: one behind the last");
  expect(KINGLET_STATUS_NO_SUCH_LABEL, kinglet_engine_label(engine, SIZE_MAX, &name, &bytes), "label: far behind the last");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_label(engine, 0, NULL, &bytes), "label: place null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_label(NULL, 0, &name, &bytes), "label: engine null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_backend(engine, NULL, 4), "backend: place null");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_engine_backend(engine, backend, 0), "backend: no room");
  expect(KINGLET_STATUS_OK, kinglet_engine_backend(engine, backend, sizeof backend), "backend: little room");
  expect_true(backend[3] == 0 && strlen(backend) == 3, "the name is cut to fit");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_reset(NULL), "reset: engine null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_fingerprint(NULL, 1, &print), "fingerprint: scores null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_fingerprint(want, 1, NULL), "fingerprint: place null");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_fingerprint(want, SIZE_MAX / 4, &print), "fingerprint: more scores than memory");
  expect_true(kinglet_engine_num_labels(NULL) == 0 && kinglet_engine_tokens(NULL) == 0 && kinglet_engine_calibrated(NULL) == 0,
              "numbers of an engine that is null are 0");
  free(members);
  free(got);
  free(want);
}

#ifdef KINGLET_STD
/* Functions of a model. */
static void models(const char *path, uint8_t *bundle, size_t length, const char *folder) {
  static const char *const texts[3] = {"wake me", "how are you", NULL};
  size_t lengths[3] = {7, 11, 0}, labels;
  kinglet_model *model = NULL;
  kinglet_engine *engine;
  kinglet_answer answers[3];
  kinglet_options options = {"sparc-vis", 0, 0};
  char *damaged = (char *)room(strlen(folder) + 20);
  float *scores;
  FILE *file;

  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_open(NULL, NULL, &model), "open: path null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_open(path, NULL, NULL), "open: place null");
  expect(KINGLET_STATUS_FILE, kinglet_model_open("there/is/no/such.kinglet", NULL, &model), "open: no such file");
  expect_true(strstr(kinglet_last_error(), "there/is/no/such.kinglet") != NULL, "the message names the file");
  expect(KINGLET_STATUS_FILE, kinglet_model_open(folder, NULL, &model), "open: a folder");
  expect(KINGLET_STATUS_UNKNOWN_BACKEND, kinglet_model_open(path, &options, &model), "open: unknown backend");
  expect_true(strstr(kinglet_last_error(), " scalar") != NULL, "the message names the backend that there are");
  sprintf(damaged, "%s/damaged.kinglet", folder);
  bundle[length / 2] ^= 16;
  file = fopen(damaged, "wb");
  if (file == NULL || fwrite(bundle, 1, length, file) != length || fclose(file) != 0) exit(2);
  expect(KINGLET_STATUS_BUNDLE_CHECKSUM, kinglet_model_open(damaged, NULL, &model), "open: a damaged file");
  expect_true(strstr(kinglet_last_error(), damaged) != NULL, "the message names the file");
  bundle[length / 2] ^= 16;
  remove(damaged);
  free(damaged);
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_from_bytes(NULL, length, NULL, &model), "from bytes: null");
  expect(KINGLET_STATUS_BUNDLE_LENGTH, kinglet_model_from_bytes(bundle, length - 64, NULL, &model), "from bytes: cut");
  expect_true(model == NULL, "none of these gave a model");

  expect(KINGLET_STATUS_OK, kinglet_model_open(path, NULL, &model), "open");
  labels = kinglet_model_num_labels(model);
  scores = (float *)room(3 * labels * sizeof *scores);
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_classify(NULL, "a", 1, answers), "classify: model null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_classify(model, NULL, 1, answers), "classify: text null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_classify(model, "a", 1, NULL), "classify: place null");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_model_classify(model, "a", SIZE_MAX, answers), "classify: text longer than memory");
  expect(KINGLET_STATUS_OK, kinglet_model_classify(model, "\xff\xfe\x00 \xc3", 5, answers), "classify: bytes that are no text");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_model_batch(model, texts, lengths, 3, 2, scores, 3 * labels - 1, NULL), "batch: room for one score less");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_model_batch(model, texts, lengths, SIZE_MAX, 2, scores, 3 * labels, NULL), "batch: more texts than memory");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_batch(model, texts, lengths, 3, 2, NULL, 3 * labels, NULL), "batch: scores null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_batch(model, NULL, lengths, 3, 2, NULL, 0, answers), "batch: texts null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_batch(model, texts, NULL, 3, 2, NULL, 0, answers), "batch: lengths null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_batch(NULL, texts, lengths, 3, 2, NULL, 0, answers), "batch: model null");
  lengths[2] = 1;
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_batch(model, texts, lengths, 3, 2, NULL, 0, answers), "batch: a text null");
  expect_true(strstr(kinglet_last_error(), "text 2 ") != NULL, "the message names the text");
  lengths[2] = 0;
  expect(KINGLET_STATUS_OK, kinglet_model_batch(model, texts, lengths, 3, 1000, scores, 3 * labels, answers), "batch: more threads than texts");
  expect(KINGLET_STATUS_OK, kinglet_model_batch(model, NULL, NULL, 0, 0, NULL, 0, NULL), "batch: no texts");
  expect(KINGLET_STATUS_CLASSIFIES, kinglet_model_embed(model, "a", 1, scores, labels), "embed: a model that classifies");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_embed(NULL, "a", 1, scores, labels), "embed: model null");
  expect_true(kinglet_model_dimension(model) == 0 && kinglet_model_dimension(NULL) == 0, "it has no vectors");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_engine(NULL, &engine), "engine: model null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_engine(model, NULL), "engine: place null");
  expect_true(kinglet_model_label(model, labels) == NULL && kinglet_model_label(NULL, 0) == NULL && kinglet_model_backend(NULL) == NULL &&
                  kinglet_model_num_labels(NULL) == 0,
              "names that are not there are null");
  kinglet_model_free(NULL);
  kinglet_engine_free(NULL);
  free(scores);
  kinglet_model_free(model);
}

/* What a model that embeds refuses, and what it is asked wrongly. */
static void embedder(const char *path) {
  static const char *const texts[1] = {"wake me"};
  const size_t lengths[1] = {7};
  kinglet_model *model;
  kinglet_engine *engine;
  kinglet_answer answer;
  float *want, *got, odd;
  uint32_t tokens;
  uint8_t member;
  const char *name;
  size_t dimension, bytes;

  expect(KINGLET_STATUS_OK, kinglet_model_open(path, NULL, &model), "open: a model that embeds");
  expect(KINGLET_STATUS_OK, kinglet_model_engine(model, &engine), "its engine");
  dimension = kinglet_model_dimension(model);
  expect_true(dimension > 1 && kinglet_engine_dimension(engine) == dimension, "it has vectors");
  expect_true(kinglet_model_num_labels(model) == 0 && kinglet_engine_num_labels(engine) == 0, "it has no labels");
  expect_true(kinglet_model_label(model, 0) == NULL && kinglet_engine_calibrated(engine) == 0, "nor their names");
  want = (float *)room(dimension * sizeof *want);
  got = (float *)room(dimension * sizeof *got);
  expect(KINGLET_STATUS_EMBEDS, kinglet_model_classify(model, "a", 1, &answer), "classify: a model that embeds");
  expect(KINGLET_STATUS_EMBEDS, kinglet_model_batch(model, texts, lengths, 1, 1, NULL, 0, &answer), "batch: a model that embeds");
  expect(KINGLET_STATUS_EMBEDS, kinglet_engine_label(engine, 0, &name, &bytes), "label: a model that embeds");
  expect(KINGLET_STATUS_EMBEDS, kinglet_engine_snapshot(engine, got, dimension, &tokens), "snapshot: a model that embeds");
  expect(KINGLET_STATUS_EMBEDS, kinglet_engine_finish(engine, got, dimension), "finish: a model that embeds");
  expect(KINGLET_STATUS_EMBEDS, kinglet_engine_probabilities(engine, got, dimension, want), "probabilities: a model that embeds");
  expect(KINGLET_STATUS_EMBEDS, kinglet_engine_answer(engine, got, dimension, &answer), "answer: a model that embeds");
  expect(KINGLET_STATUS_EMBEDS, kinglet_engine_set(engine, got, 1, &member), "set: a model that embeds");

  expect(KINGLET_STATUS_OK, kinglet_model_embed(model, "wake me", 7, want, dimension), "embed");
  expect(KINGLET_STATUS_OK, kinglet_model_embed(model, NULL, 0, got, dimension), "embed: no text at all");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_model_embed(model, "a", 1, &odd, 1), "embed: room for one value");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_embed(model, "a", 1, NULL, dimension), "embed: place null");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_model_embed(model, NULL, 1, got, dimension), "embed: text null");
  expect(KINGLET_STATUS_OK, kinglet_engine_push(engine, "wake ", 5), "a text, its begin");
  expect(KINGLET_STATUS_WRONG_LENGTH, kinglet_engine_embed(engine, got, dimension - 1), "embed: room for one value less");
  expect(KINGLET_STATUS_NULL_POINTER, kinglet_engine_embed(engine, NULL, dimension), "embed: place null");
  expect(KINGLET_STATUS_OK, kinglet_engine_push(engine, "me", 2), "its end");
  expect(KINGLET_STATUS_OK, kinglet_engine_embed(engine, got, dimension), "its vector");
  expect_true(memcmp(got, want, dimension * sizeof *got) == 0, "after all these errors the text has the same vector");
  free(got);
  free(want);
  kinglet_engine_free(engine);
  kinglet_model_free(model);
}

/* With too little memory. */
static int too_little(const char *path) {
  kinglet_options options = {NULL, KINGLET_MAX_CHUNK, 0};
  kinglet_model *model;
  expect(KINGLET_STATUS_OUT_OF_MEMORY, kinglet_model_open(path, &options, &model), "open: no memory for an engine");
  return bad;
}
#endif

int main(int argc, char **argv) {
  uint8_t *bundle, *memory;
  size_t length, bytes = 0;
  kinglet_engine *engine;

  if (argc != 3 && argc != 4) {
    fprintf(stderr, "usage: %s MODEL FOLDER [EMBEDDER]\n", argv[0]);
    return 2;
  }
#ifdef KINGLET_STD
  if (strcmp(argv[2], "memory") == 0) return too_little(argv[1]);
  expect_true(kinglet_last_error()[0] == 0, "before the first error there is no message");
#endif
  messages();
  bundle = read_file(argv[1], &length);
  expect(KINGLET_STATUS_OK, kinglet_engine_bytes(bundle, length, 0, &bytes), "bytes");
  memory = (uint8_t *)room(bytes + 8);
  inits(bundle, length, memory, bytes);
  damaged(bundle, length, memory, bytes);
  expect(KINGLET_STATUS_OK, kinglet_engine_init(memory, bytes, bundle, length, NULL, &engine), "an engine");
  calls(engine);
#ifdef KINGLET_STD
  kinglet_engine_free(engine);
  expect(KINGLET_STATUS_OK, kinglet_engine_push(engine, "a", 1), "an engine in the caller's memory is not freed");
  models(argv[1], bundle, length, argv[2]);
  if (argc == 4) embedder(argv[3]);
#endif
  free(memory);
  free(bundle);
  puts(bad ? "FAILED" : "all answers are those expected");
  return bad;
}
