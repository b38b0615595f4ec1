/* Classifies texts with a model on the heap, then one text in parts.
 *
 *   cc -o classify classify.c $(pkg-config --cflags --libs kinglet)
 *   ./classify model.kinglet "wake me at seven tomorrow"
 */
#include <kinglet.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Says what went wrong. Gives the program's exit code. */
static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, kinglet_last_error());
  return EXIT_FAILURE;
}

/* The label of a text that comes in parts, and what is thought on the way. */
static int stream(const kinglet_model *model, const char *text) {
  const size_t labels = kinglet_model_num_labels(model), length = strlen(text), part = 8;
  float *scores = malloc(labels * sizeof *scores), *probabilities = malloc(labels * sizeof *probabilities);
  kinglet_engine *engine = NULL;
  kinglet_answer answer;
  uint32_t tokens;
  size_t at;
  int code = EXIT_FAILURE;

  if (scores == NULL || probabilities == NULL || kinglet_model_engine(model, &engine) != KINGLET_STATUS_OK) goto done;
  for (at = 0; at < length; at += part) {
    /* Cut anywhere: even a character may lie in two parts. */
    if (kinglet_engine_push(engine, text + at, length - at < part ? length - at : part) != KINGLET_STATUS_OK) goto done;
    if (kinglet_engine_snapshot(engine, scores, labels, &tokens) != KINGLET_STATUS_OK) goto done;
    if (tokens == 0) continue; /* It has seen too little to say anything. */
    if (kinglet_engine_probabilities(engine, scores, labels, probabilities) != KINGLET_STATUS_OK) goto done;
    if (kinglet_engine_answer(engine, probabilities, labels, &answer) != KINGLET_STATUS_OK) goto done;
    printf("  after %u tokens: %s %.4f\n", (unsigned)tokens, kinglet_model_label(model, answer.label), answer.probability);
  }
  if (kinglet_engine_finish(engine, scores, labels) != KINGLET_STATUS_OK) goto done;
  if (kinglet_engine_probabilities(engine, scores, labels, probabilities) != KINGLET_STATUS_OK) goto done;
  if (kinglet_engine_answer(engine, probabilities, labels, &answer) != KINGLET_STATUS_OK) goto done;
  printf("  in parts: %s %.4f\n", kinglet_model_label(model, answer.label), answer.probability);
  code = EXIT_SUCCESS;
done:
  if (code != EXIT_SUCCESS) failed("stream");
  kinglet_engine_free(engine);
  free(probabilities);
  free(scores);
  return code;
}

int main(int argc, char **argv) {
  kinglet_model *model = NULL;
  kinglet_answer answer;
  int i, code = EXIT_SUCCESS;

  if (argc < 3) {
    fprintf(stderr, "usage: %s MODEL TEXT...\n", argv[0]);
    return 2;
  }
  if (kinglet_abi_version() != KINGLET_ABI_VERSION) {
    fprintf(stderr, "the library (%s) is not the one that this program was compiled for\n", kinglet_version());
    return EXIT_FAILURE;
  }
  if (kinglet_model_open(argv[1], NULL, &model) != KINGLET_STATUS_OK) return failed("open");
  fprintf(stderr, "Kinglet %s, %s, %lu labels\n", kinglet_version(), kinglet_model_backend(model),
          (unsigned long)kinglet_model_num_labels(model));
  for (i = 2; i < argc && code == EXIT_SUCCESS; i++) {
    if (kinglet_model_classify(model, argv[i], strlen(argv[i]), &answer) != KINGLET_STATUS_OK) {
      code = failed("classify");
      break;
    }
    printf("%s\t%.4f%s\n", kinglet_model_label(model, answer.label), answer.probability, answer.unsure ? "\tunsure" : "");
    code = stream(model, argv[i]);
  }
  kinglet_model_free(model);
  return code;
}
