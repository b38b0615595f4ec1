/* Prints how many bytes of memory kinglet_engine_init needs for a model, and its number of labels.
 *
 *   ./bytes MODEL [CHUNK]     CHUNK: tokens that go through the layers together, 0 for the default
 */
#include <kinglet.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  FILE *file;
  uint8_t *bundle = NULL;
  kinglet_engine *engine = NULL;
  kinglet_options options = {NULL, 0, 0};
  kinglet_status status;
  void *memory;
  size_t length = 0, bytes = 0;
  long end;

  if (argc < 2) {
    fprintf(stderr, "usage: %s MODEL [CHUNK]\n", argv[0]);
    return 2;
  }
  if (argc > 2) options.chunk = (uint32_t)strtoul(argv[2], NULL, 10);
  file = fopen(argv[1], "rb");
  if (file != NULL && fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) > 0 && fseek(file, 0, SEEK_SET) == 0) {
    bundle = (uint8_t *)malloc((size_t)end);
    if (bundle != NULL) length = fread(bundle, 1, (size_t)end, file);
  }
  if (length == 0) {
    perror(argv[1]);
    return 1;
  }
  fclose(file);
  status = kinglet_engine_bytes(bundle, length, options.chunk, &bytes);
  memory = status == KINGLET_STATUS_OK ? malloc(bytes) : NULL;
  if (memory != NULL) status = kinglet_engine_init(memory, bytes, bundle, length, &options, &engine);
  if (engine == NULL) {
    fprintf(stderr, "%s: %s\n", argv[1], status == KINGLET_STATUS_OK ? "no memory" : kinglet_status_message(status));
    return 1;
  }
  printf("%lu %lu\n", (unsigned long)bytes, (unsigned long)kinglet_engine_num_labels(engine));
  free(memory);
  free(bundle);
  return 0;
}
