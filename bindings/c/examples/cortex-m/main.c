/* A C program for a Cortex-M4F without operating system, heap or C library: model and texts lie in flash, the engine in a static
 * buffer. It runs in QEMU (-M netduinoplus2, an STM32F405) and prints over semihosting:
 *
 *   LABEL<TAB>FINGERPRINT     of each text, as `kinglet fingerprint` prints it
 *   scores HEX                the bytes of its scores
 *
 *   stack BYTES               at the end, the most that was used
 *
 * and first what happens with a buffer that is too small and a model that is cut. On a board a UART takes the place of print().
 */
#include <kinglet.h>

/* "all" of `kinglet info --chunk CHUNK`, and the labels of the model. */
#ifndef MEMORY_BYTES
#error "compile with -DMEMORY_BYTES=..., -DCHUNK=... and -DMODEL_LABELS=..."
#endif

/* The fastest that the library has. */
#ifndef KERNELS
#define KERNELS NULL
#endif

extern const uint8_t kinglet_model_begin[], kinglet_model_end[];
extern const char texts_begin[], texts_end[];

static uint64_t memory[(MEMORY_BYTES + KINGLET_ENGINE_EXTRA + 7) / 8];
static float scores[MODEL_LABELS], probabilities[MODEL_LABELS];

/* What the debugger, or QEMU, is asked for. */
static int32_t semihosting(int32_t operation, const void *argument) {
  register int32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static void print(const char *text) { semihosting(4 /* SYS_WRITE0 */, text); }

static void leave(uint32_t code) {
  const uint32_t block[2] = {0x20026 /* ADP_Stopped_ApplicationExit */, code};
  for (;;) semihosting(0x20 /* SYS_EXIT_EXTENDED */, block);
}

static void print_number(uint32_t number) {
  char digits[11], *at = digits + sizeof digits - 1;
  *at = 0;
  do {
    *--at = (char)('0' + number % 10);
    number /= 10;
  } while (number > 0);
  print(at);
}

/* Bytes in hexadecimal, `room` for twice as many and one. */
static void hex(const void *bytes, size_t count, char *room) {
  static const char digits[] = "0123456789abcdef";
  const uint8_t *byte = (const uint8_t *)bytes;
  for (; count > 0; count--, byte++) {
    *room++ = digits[*byte >> 4];
    *room++ = digits[*byte & 15];
  }
  *room = 0;
}

static void check(kinglet_status status) {
  if (status == KINGLET_STATUS_OK) return;
  print(kinglet_status_message(status));
  print("\n");
  leave(1);
}

/* Says what an attempt that has to fail answers. */
static void refused(const char *what, kinglet_status want, kinglet_status got) {
  print(what);
  print(": ");
  print(kinglet_status_message(got));
  print("\n");
  if (got != want) leave(1);
}

static void print_result(const kinglet_engine *engine) {
  static char line[8 * MODEL_LABELS + 1];
  kinglet_answer answer;
  uint32_t fingerprint, turned;
  const char *name;
  size_t bytes, i;
  check(kinglet_engine_probabilities(engine, scores, MODEL_LABELS, probabilities));
  check(kinglet_engine_answer(engine, probabilities, MODEL_LABELS, &answer));
  check(kinglet_engine_label(engine, answer.label, &name, &bytes));
  check(kinglet_fingerprint(scores, MODEL_LABELS, &fingerprint));
  for (i = 0; i < bytes && i < sizeof line - 1; i++) line[i] = name[i];
  line[i] = 0;
  print(line);
  /* The highest digit first. */
  turned = __builtin_bswap32(fingerprint);
  hex(&turned, sizeof turned, line);
  print("\t");
  print(line);
  hex(scores, sizeof scores, line);
  print("\nscores ");
  print(line);
  print("\n");
}

int main(void) {
  const size_t bundle_bytes = (size_t)(kinglet_model_end - kinglet_model_begin);
  const kinglet_options options = {KERNELS, CHUNK, 0};
  const char *text, *at;
  kinglet_engine *engine;

  refused("half the memory", KINGLET_STATUS_ARENA_TOO_SMALL,
          kinglet_engine_init(memory, sizeof memory / 2, kinglet_model_begin, bundle_bytes, &options, &engine));
  refused("half the model", KINGLET_STATUS_BUNDLE_LENGTH,
          kinglet_engine_init(memory, sizeof memory, kinglet_model_begin, bundle_bytes / 2, &options, &engine));
  refused("no model", KINGLET_STATUS_NULL_POINTER, kinglet_engine_init(memory, sizeof memory, NULL, bundle_bytes, &options, &engine));

  check(kinglet_engine_init(memory, sizeof memory, kinglet_model_begin, bundle_bytes, &options, &engine));
  if (kinglet_engine_num_labels(engine) != MODEL_LABELS) check(KINGLET_STATUS_WRONG_LENGTH);
  for (text = at = texts_begin; at < texts_end; at++) {
    if (*at != '\n') continue;
    check(kinglet_engine_push(engine, text, (size_t)(at - text)));
    check(kinglet_engine_finish(engine, scores, MODEL_LABELS));
    print_result(engine);
    text = at + 1;
  }
  return 0;
}

extern uint32_t data_begin[], data_end[], data_in_flash[], bss_begin[], bss_end[], stack_top[];

/* What lies below the stack before anything was there. */
#define PAINT 0xA5A5A5A5u

void reset(void) {
  const uint32_t *from = data_in_flash;
  uint32_t *to, code;
  /* Coprocessors 10 and 11, which are the FPU, for everyone. */
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;
  __asm__ volatile("dsb\n\tisb" ::: "memory");
  for (to = data_begin; to < data_end;) *to++ = *from++;
  for (to = bss_begin; to < bss_end;) *to++ = 0;
  /* Up to this function's own part of the stack. */
  for (to = bss_end; to < (uint32_t *)__builtin_frame_address(0) - 32; to++) *(volatile uint32_t *)to = PAINT;
  code = (uint32_t)main();
  for (to = bss_end; to < stack_top && *(volatile uint32_t *)to == PAINT;) to++;
  print("stack ");
  print_number((uint32_t)(stack_top - to) * sizeof *to);
  print("\n");
  leave(code);
}

static void fault(void) {
  print("fault\n");
  leave(3);
}

struct vectors {
  void *stack;
  void (*handlers[15])(void);
};

__attribute__((section(".vectors"), used)) static const struct vectors vectors = {
    stack_top, {reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault}};
