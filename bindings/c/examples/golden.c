/* Prints a model's exact scores as short lines, to compare devices by: LABEL<TAB>FINGERPRINT of each line of a file, as `kinglet
 * fingerprint` does, and writes the scores themselves into a file. Every text is scored in a batch on several threads, alone, and in
 * parts of a stream; where these differ in a bit it fails.
 *
 *   ./golden MODEL KERNELS TEXTS SCORES     KERNELS: a name, or "fastest"
 */
#include <kinglet.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 3

static void fail(const char *what) {
  fprintf(stderr, "golden: %s: %s\n", what, kinglet_last_error());
  exit(1);
}

static void check(kinglet_status status, const char *what) {
  if (status != KINGLET_STATUS_OK) fail(what);
}

static void *room(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (memory == NULL) {
    fputs("golden: no memory\n", stderr);
    exit(1);
  }
  return memory;
}

/* A whole file, with a zero byte behind. */
static char *read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  char *bytes;
  long end;
  if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (end = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0) {
    perror(path);
    exit(1);
  }
  bytes = (char *)room((size_t)end + 1, 1);
  *length = fread(bytes, 1, (size_t)end, file);
  if (*length != (size_t)end) {
    perror(path);
    exit(1);
  }
  fclose(file);
  return bytes;
}

/* Prints the most likely label, or the labels that apply where any number may, with commas between them. */
static void print_labels(const kinglet_model *model, const char *text, size_t length, size_t label, unsigned char *members, size_t labels) {
  size_t i;
  const char *comma = "";
  if (!kinglet_model_multi_label(model)) {
    fputs(kinglet_model_label(model, label), stdout);
    return;
  }
  check(kinglet_model_given(model, text, length, members, labels), "given");
  for (i = 0; i < labels; i++) {
    if (!members[i]) continue;
    printf("%s%s", comma, kinglet_model_label(model, i));
    comma = ",";
  }
}

/* The labels of an engine are those of its model. */
static void same_labels(kinglet_engine *engine, const float *scores, const unsigned char *want, size_t labels) {
  float *probabilities = (float *)room(labels, sizeof *probabilities);
  unsigned char *members = (unsigned char *)room(labels, 1);
  check(kinglet_engine_probabilities(engine, scores, labels, probabilities), "probabilities");
  check(kinglet_engine_given(engine, probabilities, labels, members), "given");
  if (memcmp(members, want, labels) != 0) {
    fputs("golden: an engine gives other labels than its model\n", stderr);
    exit(1);
  }
  free(members);
  free(probabilities);
}

/* The scores of a text that comes in parts of `part` bytes, with a snapshot after each. */
static void in_parts(kinglet_engine *engine, const char *text, size_t length, size_t part, float *scores, size_t labels) {
  uint32_t tokens, before = 0;
  size_t at;
  for (at = 0; at < length; at += part) {
    check(kinglet_engine_push(engine, text + at, length - at < part ? length - at : part), "push");
    check(kinglet_engine_snapshot(engine, scores, labels, &tokens), "snapshot");
    if (tokens < before) {
      fputs("golden: a snapshot has fewer tokens than the one before\n", stderr);
      exit(1);
    }
    before = tokens;
  }
  check(kinglet_engine_finish(engine, scores, labels), "finish");
}

int main(int argc, char **argv) {
  kinglet_options options;
  kinglet_model *model, *copy;
  kinglet_engine *engine;
  kinglet_answer *answers, answer;
  char *file, *bundle, **texts;
  size_t file_bytes, bundle_bytes, *lengths, count = 0, labels, i, part;
  float *scores, *again;
  unsigned char *members;
  uint32_t fingerprint;
  FILE *out;

  if (argc != 5) {
    fprintf(stderr, "usage: %s MODEL KERNELS TEXTS SCORES\n", argv[0]);
    return 2;
  }
  memset(&options, 0, sizeof options);
  if (strcmp(argv[2], "fastest") != 0) options.backend = argv[2];
  check(kinglet_model_open(argv[1], &options, &model), "open");
  if (options.backend != NULL && strcmp(options.backend, kinglet_model_backend(model)) != 0) {
    fprintf(stderr, "golden: %s run, not %s\n", kinglet_model_backend(model), options.backend);
    return 1;
  }
  fprintf(stderr, "backend %s\n", kinglet_model_backend(model));

  file = read_file(argv[3], &file_bytes);
  for (i = 0; i < file_bytes; i++) count += file[i] == '\n';
  texts = (char **)room(count, sizeof *texts);
  lengths = (size_t *)room(count, sizeof *lengths);
  texts[0] = strtok(file, "\n");
  for (i = 0; i < count && texts[i] != NULL; i++) {
    lengths[i] = strlen(texts[i]);
    if (i + 1 < count) texts[i + 1] = strtok(NULL, "\n");
  }
  if (i != count) {
    fputs("golden: a line is empty\n", stderr);
    return 1;
  }

  labels = kinglet_model_num_labels(model);
  scores = (float *)room(count * labels, sizeof *scores);
  again = (float *)room(labels, sizeof *again);
  members = (unsigned char *)room(labels, 1);
  answers = (kinglet_answer *)room(count, sizeof *answers);
  check(kinglet_model_batch(model, (const char *const *)texts, lengths, count, THREADS, scores, count * labels, answers), "batch");

  /* The same model from memory, at an address that is aligned to nothing; and chunks of another size. */
  bundle = read_file(argv[1], &bundle_bytes);
  bundle = (char *)realloc(bundle, bundle_bytes + 1);
  if (bundle == NULL) return 1;
  memmove(bundle + 1, bundle, bundle_bytes);
  options.chunk = 7;
  check(kinglet_model_from_bytes((const uint8_t *)bundle + 1, bundle_bytes, &options, &copy), "from bytes");
  free(bundle);
  check(kinglet_model_engine(copy, &engine), "engine");
  /* An engine keeps what it needs of its model. */
  kinglet_model_free(copy);

  for (i = 0; i < count; i++) {
    const float *want = scores + i * labels;
    for (part = 1; part <= 16; part += 5) {
      in_parts(engine, texts[i], lengths[i], part, again, labels);
      if (memcmp(again, want, labels * sizeof *want) != 0) {
        fprintf(stderr, "golden: text %lu has other scores in parts of %lu bytes\n", (unsigned long)i, (unsigned long)part);
        return 1;
      }
    }
    check(kinglet_model_classify(model, texts[i], lengths[i], &answer), "classify");
    if (answer.label != answers[i].label || answer.unsure != answers[i].unsure ||
        memcmp(&answer.probability, &answers[i].probability, sizeof answer.probability) != 0) {
      fprintf(stderr, "golden: text %lu has another answer alone\n", (unsigned long)i);
      return 1;
    }
    check(kinglet_fingerprint(want, labels, &fingerprint), "fingerprint");
    print_labels(model, texts[i], lengths[i], answer.label, members, labels);
    if (kinglet_engine_multi_label(engine)) same_labels(engine, want, members, labels);
    printf("\t%08lx\n", (unsigned long)fingerprint);
  }

  out = fopen(argv[4], "wb");
  if (out == NULL || fwrite(scores, sizeof *scores, count * labels, out) != count * labels || fclose(out) != 0) {
    perror(argv[4]);
    return 1;
  }
  kinglet_engine_free(engine);
  kinglet_model_free(model);
  free(answers);
  free(again);
  free(members);
  free(scores);
  free(lengths);
  free(texts);
  free(file);
  return 0;
}
