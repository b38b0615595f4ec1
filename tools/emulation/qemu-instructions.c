// A plugin of QEMU that counts the instructions a program executes, and writes the count to the file that its argument names:
//   cc -shared -fPIC -DAPI=1 -o count.so tools/emulation/qemu-instructions.c      API: 1 for QEMU before 9, 2 from 9 on
//   qemu-aarch64 -plugin ./count.so,to=FILE PROGRAM
// The declarations are QEMU's public plugin interface. Blocks of instructions are counted when they begin.
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);

int qemu_plugin_version = API;

static uint64_t executed;
static char to[4096];

static void begins(unsigned cpu, void *instructions) {
    (void)cpu;
    __atomic_fetch_add(&executed, (uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, begins, 0, (void *)qemu_plugin_tb_n_insns(block));
}

static void ended(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    FILE *file = fopen(to, "w");
    if (!file || fprintf(file, "%llu\n", (unsigned long long)executed) < 0 || fclose(file)) perror(to);
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **arguments) {
    (void)info;
    if (count != 1 || strncmp(arguments[0], "to=", 3) || strlen(arguments[0]) >= sizeof to) {
        fputs("qemu-instructions: the argument is to=FILE\n", stderr);
        return 1;
    }
    strcpy(to, arguments[0] + 3);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
