/* Embeds texts with a model that embeds, whole and in parts, and compares each with the first.
 *
 *   cc -o embed embed.c $(pkg-config --cflags --libs kinglet)
 *   ./embed sentences/model.kinglet "wake me at seven" "set an alarm for 7" "what is the weather like"
 *
 * Prints, for each text, the fingerprint of its vector (as `kinglet fingerprint` does), the cosine to the first text, and the text.
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

/* The cosine of two vectors of length 1. */
static float cosine(const float *a, const float *b, size_t dimension) {
  float sum = 0;
  size_t i;
  for (i = 0; i < dimension; i++) sum += a[i] * b[i];
  return sum;
}

/* The vector of a text that comes in parts. */
static kinglet_status in_parts(kinglet_engine *engine, const char *text, float *vector, size_t dimension) {
  const size_t length = strlen(text), part = 5;
  size_t at;
  for (at = 0; at < length; at += part) {
    /* Cut anywhere: even a character may lie in two parts. */
    const kinglet_status status = kinglet_engine_push(engine, text + at, length - at < part ? length - at : part);
    if (status != KINGLET_STATUS_OK) return status;
  }
  return kinglet_engine_embed(engine, vector, dimension);
}

int main(int argc, char **argv) {
  kinglet_model *model = NULL;
  kinglet_engine *engine = NULL;
  float *first = NULL, *vector = NULL, *again = NULL;
  size_t dimension;
  uint32_t fingerprint;
  int i, code = EXIT_SUCCESS;

  if (argc < 3) {
    fprintf(stderr, "usage: %s MODEL TEXT...\n", argv[0]);
    return 2;
  }
  if (kinglet_model_open(argv[1], NULL, &model) != KINGLET_STATUS_OK) return failed("open");
  dimension = kinglet_model_dimension(model);
  /* 0 of a model that classifies, which the first vector then says. */
  first = calloc(dimension + 1, sizeof *first);
  vector = calloc(dimension + 1, sizeof *vector);
  again = calloc(dimension + 1, sizeof *again);
  if (first == NULL || vector == NULL || again == NULL || kinglet_model_engine(model, &engine) != KINGLET_STATUS_OK) code = failed("engine");
  for (i = 2; i < argc && code == EXIT_SUCCESS; i++) {
    if (kinglet_model_embed(model, argv[i], strlen(argv[i]), vector, dimension) != KINGLET_STATUS_OK) {
      code = failed("embed");
      break;
    }
    if (in_parts(engine, argv[i], again, dimension) != KINGLET_STATUS_OK) {
      code = failed("in parts");
      break;
    }
    if (memcmp(again, vector, dimension * sizeof *vector) != 0) {
      fputs("the text has another vector in parts\n", stderr);
      code = EXIT_FAILURE;
      break;
    }
    if (i == 2) memcpy(first, vector, dimension * sizeof *vector);
    if (kinglet_fingerprint(vector, dimension, &fingerprint) != KINGLET_STATUS_OK) code = failed("fingerprint");
    printf("%08lx\t%.4f\t%s\n", (unsigned long)fingerprint, (double)cosine(first, vector, dimension), argv[i]);
  }
  kinglet_engine_free(engine);
  free(again);
  free(vector);
  free(first);
  kinglet_model_free(model);
  return code;
}
