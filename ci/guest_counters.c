// SPDX-License-Identifier: MIT
/* A TCG plugin for qemu-user: counts what AArch64 guest code executes.
 *
 * For each executed translation block it adds, per vCPU (guest thread), the
 * number of instructions and a cost in modelled Neoverse V1 cycles, by two models.
 * A guest that makes system call READ_COUNTERS (which Linux does not have, so
 * the call itself returns ENOSYS) gets the counts appended to the file named by
 * the plugin argument out=PATH, as one line with, for each thread that there
 * has been, "instructions cycles24 cycles24", of model 1 and of model 2. Counting
 * begins with the first such call: what comes before, importing PyTorch above all,
 * is not measured, and would take longer to translate.
 *
 * With hotspots=PATH, where the guest has been is appended to that file on every
 * such call, which slows it down and counts threads together: one line for each
 * block, "address instructions cycles24" (of model 1), the files that the
 * addresses are in, as in /proc/self/maps, and a line "end". ci/hotspots.sh reads it.
 *
 * Model 1. A Neoverse V1 core dispatches 8 operations a cycle and executes
 * four 128-bit NEON or two 256-bit SVE operations, three 128-bit or two SVE
 * loads, two stores, two branches and four scalar operations a cycle (Arm
 * Neoverse V1 Software Optimization Guide). A block of n instructions in
 * which NEON, SVE and SVE loads are at least 0.3 n is taken to run at the
 * throughput of its busiest unit; any other block at 3 instructions a cycle.
 * Costs are whole numbers of 1/24 cycle, so that sums are exact.
 *
 * Model 2 is the same but for SVE instructions that work on scalar registers or
 * predicates (addvl, cntb, ptrue, whilelt and their like): those are scalar
 * operations, which take no vector unit's time. For the loop of ACL's interleaved
 * SVE kernel for int8, llvm-mca's model of a V1 gives 24.0 cycles, model 2 gives
 * 24, and model 1, which takes the loop's two addvl for vector operations, 25.
 */
#include <glib.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { READ_COUNTERS = 0xac1 };

enum { MODELS = 2 };

typedef struct {
    uint64_t instructions;
    uint64_t cycles24[MODELS];
} Counters;

typedef struct {
    uint64_t neon, sve, load, sve_load, store, branch, scalar;
} BlockMix;

static struct qemu_plugin_scoreboard *board;
static qemu_plugin_u64 instructions;
static qemu_plugin_u64 cycles24[MODELS];
static gint counting;
static char *out_path;
static char *hotspots_path;

static void count_from_here_on(qemu_plugin_id_t id);

/* A translated block, for the hot spots. */
typedef struct Block {
    uint64_t address; /* in this process, not the guest's: what /proc/self/maps has */
    uint64_t instructions, cycles24, executions;
    struct Block *next;
} Block;

static Block *blocks;
static GMutex blocks_lock;

/* SVE instructions that have no vector among their operands (Arm ARM, C4.1, SVE encodings). */
static bool is_scalar_sve(uint32_t opcode)
{
    return (opcode & 0xffa0f800) == 0x04205000    /* addvl, addpl */
        || (opcode & 0xfffff800) == 0x04bf5000    /* rdvl */
        || (opcode & 0xff30fc00) == 0x0420e000    /* cntb and its like */
        || (opcode & 0xff30f800) == 0x0430e000    /* incb, decb and their like */
        || (opcode & 0xff3efc00) == 0x2518e000    /* ptrue, ptrues */
        || (opcode & 0xff20e000) == 0x25200000;   /* while */
}

/* Top-level encoding groups of the A64 instruction set (Arm ARM, C4.1). */
static void classify(uint32_t opcode, int model, BlockMix *mix)
{
    uint32_t op0 = (opcode >> 25) & 0xf;

    if (op0 == 0x2 && model == 2 && is_scalar_sve(opcode)) {
        mix->scalar++;
    } else if (op0 == 0x2) {
        uint32_t group = opcode >> 29;
        if (group >= 4 && group <= 6) {
            mix->sve_load++;
        } else if (group == 7) {
            mix->store++;
        } else {
            mix->sve++;
        }
    } else if ((op0 & 0x5) == 0x4) {
        /* Bit 22 is the load bit of nearly every load/store encoding. */
        if (opcode & (1u << 22)) {
            mix->load++;
        } else {
            mix->store++;
        }
    } else if ((op0 & 0x7) == 0x7) {
        mix->neon++;
    } else if ((op0 & 0xe) == 0xa) {
        mix->branch++;
    } else {
        mix->scalar++;
    }
}

static uint64_t block_cycles24(const BlockMix *m, uint64_t n)
{
    if (10 * (m->neon + m->sve + m->sve_load) < 3 * n) {
        return 8 * n;
    }
    uint64_t cost = 3 * n;
    cost = MAX(cost, 6 * m->neon + 12 * m->sve);
    cost = MAX(cost, 8 * m->load + 12 * m->sve_load);
    cost = MAX(cost, 12 * m->store);
    cost = MAX(cost, 12 * m->branch);
    cost = MAX(cost, 6 * m->scalar);
    return cost;
}

static void on_execute(unsigned int vcpu, void *block)
{
    (void)vcpu;
    __atomic_fetch_add(&((Block *)block)->executions, 1, __ATOMIC_RELAXED);
}

static void hotspots_block(struct qemu_plugin_tb *tb, uint64_t n, uint64_t cost)
{
    Block *block = g_new0(Block, 1);
    block->address = (uintptr_t)qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0));
    block->instructions = n;
    block->cycles24 = cost;
    g_mutex_lock(&blocks_lock);
    block->next = blocks;
    blocks = block;
    g_mutex_unlock(&blocks_lock);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_execute, QEMU_PLUGIN_CB_NO_REGS, block);
}

static void write_hotspots(void)
{
    FILE *out = fopen(hotspots_path, "a");
    char *maps = NULL;
    if (!out || !g_file_get_contents("/proc/self/maps", &maps, NULL, NULL)) {
        fprintf(stderr, "guest_counters: cannot append to %s\n", hotspots_path);
    } else {
        g_mutex_lock(&blocks_lock);
        for (const Block *b = blocks; b; b = b->next) {
            if (b->executions) {
                fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", b->address,
                        b->executions * b->instructions, b->executions * b->cycles24);
            }
        }
        g_mutex_unlock(&blocks_lock);
        fprintf(out, "%send\n", maps);
    }
    g_free(maps);
    if (out) {
        fclose(out);
    }
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(tb);
    BlockMix mix[MODELS] = {0};

    for (size_t i = 0; i < n; i++) {
        uint32_t opcode = 0;
        qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i), &opcode, sizeof opcode);
        for (int model = 0; model < MODELS; model++) {
            classify(GUINT32_FROM_LE(opcode), model + 1, &mix[model]);
        }
    }
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        tb, QEMU_PLUGIN_INLINE_ADD_U64, instructions, n);
    for (int model = 0; model < MODELS; model++) {
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
            tb, QEMU_PLUGIN_INLINE_ADD_U64, cycles24[model], block_cycles24(&mix[model], n));
    }
    if (hotspots_path) {
        hotspots_block(tb, n, block_cycles24(&mix[0], n));
    }
}

static void write_counters(void)
{
    FILE *out = fopen(out_path, "a");
    if (!out) {
        fprintf(stderr, "guest_counters: cannot append to %s\n", out_path);
        return;
    }
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++) {
        fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 " ", qemu_plugin_u64_get(instructions, i),
                qemu_plugin_u64_get(cycles24[0], i), qemu_plugin_u64_get(cycles24[1], i));
    }
    fputc('\n', out);
    fclose(out);
    if (hotspots_path) {
        write_hotspots();
    }
}

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t num, uint64_t a1,
                       uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                       uint64_t a7, uint64_t a8)
{
    (void)vcpu; (void)a1; (void)a2; (void)a3; (void)a4;
    (void)a5; (void)a6; (void)a7; (void)a8;
    if (num != READ_COUNTERS) {
        return;
    }
    write_counters();
    if (g_atomic_int_compare_and_exchange(&counting, false, true)) {
        /* A reset is what makes qemu translate everything again. */
        qemu_plugin_reset(id, count_from_here_on);
    }
}

static void count_from_here_on(qemu_plugin_id_t id)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
                                           int argc, char **argv)
{
    if (strcmp(info->target_name, "aarch64") != 0) {
        fprintf(stderr, "guest_counters: target is %s, expected aarch64\n", info->target_name);
        return -1;
    }
    for (int i = 0; i < argc; i++) {
        if (g_str_has_prefix(argv[i], "out=")) {
            out_path = g_strdup(argv[i] + strlen("out="));
        } else if (g_str_has_prefix(argv[i], "hotspots=")) {
            hotspots_path = g_strdup(argv[i] + strlen("hotspots="));
        }
    }
    if (!out_path) {
        fprintf(stderr, "guest_counters: argument out=PATH is missing\n");
        return -1;
    }
    board = qemu_plugin_scoreboard_new(sizeof(Counters));
    instructions = qemu_plugin_scoreboard_u64_in_struct(board, Counters, instructions);
    cycles24[0] = qemu_plugin_scoreboard_u64_in_struct(board, Counters, cycles24[0]);
    cycles24[1] = qemu_plugin_scoreboard_u64_in_struct(board, Counters, cycles24[1]);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
