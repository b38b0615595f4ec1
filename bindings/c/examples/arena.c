/* Classifies lines of text with a bundle that is part of the program, inside a buffer whose size is known when it is compiled:
 * what a program on a microcontroller does. Nothing here or in the library allocates; lines come from standard input.
 *
 *   ./arena < texts         LABEL<TAB>FINGERPRINT of each line, as `kinglet fingerprint` prints it
 *   ./arena scores < texts  the scores themselves, as bytes
 *   ./arena answers < texts what a person wants to know
 *
 * MEMORY_BYTES is what `kinglet info model.kinglet` prints as "all" under "memory beyond the file", MODEL_LABELS at least the number of
 * labels. With -DCHUNK=8 8 tokens go through the layers together: `kinglet info --chunk 8`.
 */
#include <kinglet.h>

#include <stdio.h>
#include <string.h>

#ifndef MEMORY_BYTES
#error "compile with -DMEMORY_BYTES=..., as `kinglet info` says"
#endif
#ifndef MODEL_LABELS
#define MODEL_LABELS 256
#endif
#ifndef CHUNK
#define CHUNK 0
#endif

/* The bundle in the program: see model.S. */
extern const uint8_t kinglet_model_begin[], kinglet_model_end[];

/* Everything that is written to. uint64_t aligns it. */
static uint64_t memory[(MEMORY_BYTES + KINGLET_ENGINE_EXTRA + 7) / 8];
static float scores[MODEL_LABELS], probabilities[MODEL_LABELS];
static uint8_t members[MODEL_LABELS];
static char line[4096], in[4096], out[4096];

static int failed(const char *what, kinglet_status status) {
  fprintf(stderr, "%s: %s\n", what, kinglet_status_message(status));
  return 1;
}

/* Prints the labels that apply to the text whose probabilities are there, where any number may. */
static int print_labels(const kinglet_engine *engine, size_t labels, uint32_t fingerprint) {
  kinglet_status status = kinglet_engine_given(engine, probabilities, labels, members);
  const char *name, *comma = "";
  size_t i, name_bytes;
  for (i = 0; i < labels && status == KINGLET_STATUS_OK; i++) {
    if (!members[i]) continue;
    status = kinglet_engine_label(engine, i, &name, &name_bytes);
    if (status == KINGLET_STATUS_OK) printf("%s%.*s", comma, (int)name_bytes, name);
    comma = ",";
  }
  if (status != KINGLET_STATUS_OK) return failed("labels", status);
  printf("\t%08lx\n", (unsigned long)fingerprint);
  return 0;
}

/* Prints what was asked for about the scores of a text. */
static int print(const kinglet_engine *engine, size_t labels, const char *what) {
  kinglet_answer answer;
  kinglet_status status;
  uint32_t fingerprint;
  const char *name;
  size_t name_bytes;

  if (strcmp(what, "scores") == 0) return fwrite(scores, sizeof *scores, labels, stdout) == labels ? 0 : 1;
  status = kinglet_engine_probabilities(engine, scores, labels, probabilities);
  if (status == KINGLET_STATUS_OK) status = kinglet_engine_answer(engine, probabilities, labels, &answer);
  if (status == KINGLET_STATUS_OK) status = kinglet_engine_label(engine, answer.label, &name, &name_bytes);
  if (status == KINGLET_STATUS_OK) status = kinglet_fingerprint(scores, labels, &fingerprint);
  if (status != KINGLET_STATUS_OK) return failed("answer", status);
  if (kinglet_engine_multi_label(engine)) return print_labels(engine, labels, fingerprint);
  if (strcmp(what, "answers") == 0) {
    printf("%.*s\t%.4f%s\n", (int)name_bytes, name, answer.probability, answer.unsure ? "\tunsure" : "");
  } else {
    printf("%.*s\t%08lx\n", (int)name_bytes, name, (unsigned long)fingerprint);
  }
  return 0;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "lines";
  const size_t bundle_bytes = (size_t)(kinglet_model_end - kinglet_model_begin);
  kinglet_options options;
  kinglet_engine *engine;
  kinglet_status status;
  size_t labels;
  char backend[32];
  int in_line = 0;

  /* The C library would allocate buffers. */
  setvbuf(stdin, in, _IOFBF, sizeof in);
  setvbuf(stdout, out, _IOFBF, sizeof out);

  memset(&options, 0, sizeof options);
  options.chunk = CHUNK;
  if (argc > 2) options.backend = argv[2];
  status = kinglet_engine_init(memory, sizeof memory, kinglet_model_begin, bundle_bytes, &options, &engine);
  if (status != KINGLET_STATUS_OK) return failed("init", status);
  labels = kinglet_engine_num_labels(engine);
  if (labels > MODEL_LABELS) return failed("MODEL_LABELS", KINGLET_STATUS_WRONG_LENGTH);
  status = kinglet_engine_backend(engine, backend, sizeof backend);
  if (status != KINGLET_STATUS_OK) return failed("backend", status);
  fprintf(stderr, "Kinglet %s, %s, %lu bytes of memory\n", kinglet_version(), backend, (unsigned long)sizeof memory);

  /* Lines may be longer than the buffer: a text goes in part by part. */
  while (fgets(line, sizeof line, stdin) != NULL) {
    size_t length = strcspn(line, "\n");
    int ended = line[length] == '\n';
    status = kinglet_engine_push(engine, line, length);
    if (status != KINGLET_STATUS_OK) return failed("push", status);
    in_line = !ended;
    if (!ended) continue;
    status = kinglet_engine_finish(engine, scores, labels);
    if (status != KINGLET_STATUS_OK) return failed("finish", status);
    if (print(engine, labels, what) != 0) return 1;
  }
  if (in_line) {
    status = kinglet_engine_finish(engine, scores, labels);
    if (status != KINGLET_STATUS_OK) return failed("finish", status);
    if (print(engine, labels, what) != 0) return 1;
  }
  return fflush(stdout) == 0 && !ferror(stdin) ? 0 : 1;
}
