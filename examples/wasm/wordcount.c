/* Word count as a WebAssembly job (docs/wasm-abi.md). With Debian's clang, lld, wasi-libc and
 * libclang-rt-dev-wasm32; without the last two by the second line, as nothing of libc is used:
 *
 *   clang --target=wasm32-wasi -O2 -fno-builtin -mexec-model=reactor -o wordcount.wasm examples/wasm/wordcount.c
 *   clang --target=wasm32 -O2 -fno-builtin -nostdlib -Wl,--no-entry -o wordcount.wasm examples/wasm/wordcount.c
 *   shoal run wordcount.wasm --input books/ --output counts
 *
 * The mapper adds up in a table of its own and emits sums, which saves sorting every single word.
 */
#include <stdint.h>

#define IMPORT(n) __attribute__((import_module("shoal"), import_name(n)))
#define EXPORT(n) __attribute__((export_name(n)))

IMPORT("emit") void emit(const void *at, uint32_t len);

enum { HEADER = 8, SLOTS = 1 << 18, WORDS_MAX = SLOTS / 2, WORD_MAX = 1 << 15 };

static struct slot { uint32_t at, len, hash, count; } slots[SLOTS];
static uint32_t words, arena_filled;
static uint8_t input[1 << 20], output[1 << 16], key[1 << 16], arena[4 << 20];
static uint32_t filled, key_len;
static uint64_t sum;

/* Words are short: a loop is quicker than a call. */
static void copy(uint8_t *to, const uint8_t *from, uint32_t len) {
    for (uint32_t n = 0; n < len; n++) to[n] = from[n];
}

static int equal(const uint8_t *a, const uint8_t *b, uint32_t len) {
    for (uint32_t n = 0; n < len; n++)
        if (a[n] != b[n]) return 0;
    return 1;
}

static uint32_t get32(const uint8_t *at) {
    uint32_t n;
    __builtin_memcpy(&n, at, 4);
    return n;
}

static void put32(uint8_t *at, uint32_t n) { __builtin_memcpy(at, &n, 4); }

static void flush(void) {
    if (filled) emit(output, filled);
    filled = 0;
}

static void put(const uint8_t *k, uint32_t kl, const uint8_t *v, uint32_t vl) {
    if (HEADER + kl + vl > sizeof output) __builtin_trap();
    if (filled + HEADER + kl + vl > sizeof output) flush();
    uint8_t *at = output + filled;
    put32(at, kl);
    put32(at + 4, vl);
    copy(at + HEADER, k, kl);
    copy(at + HEADER + kl, v, vl);
    filled += HEADER + kl + vl;
}

EXPORT("shoal_abi") uint32_t abi(void) { return 1; }

EXPORT("shoal_input") uint8_t *room(uint32_t len) { return len <= sizeof input ? input : 0; }

/* A number in decimal, at the end of `digits`; returns how many. */
static uint32_t decimal(uint64_t number, uint8_t digits[20]) {
    uint32_t n = 20;
    do digits[--n] = '0' + number % 10;
    while (number /= 10);
    return 20 - n;
}

static void emit_words(void) {
    for (uint32_t n = 0; words && n < SLOTS; n++) {
        struct slot *slot = &slots[n];
        if (!slot->count) continue;
        uint8_t digits[20];
        uint32_t len = decimal(slot->count, digits);
        put(arena + slot->at, slot->len, digits + 20 - len, len);
        slot->count = 0;
        words--;
    }
    arena_filled = 0;
}

static void count(const uint8_t *word, uint32_t len, uint32_t hash) {
    if (len > WORD_MAX) __builtin_trap();
    struct slot *slot;
    for (uint32_t n = hash;; n++) {
        slot = &slots[n % SLOTS];
        if (!slot->count) break;
        if (slot->hash == hash && slot->len == len && equal(arena + slot->at, word, len)) {
            if (++slot->count == UINT32_MAX) emit_words();
            return;
        }
    }
    *slot = (struct slot){arena_filled, len, hash, 1};
    copy(arena + arena_filled, word, len);
    arena_filled += len;
    if (++words == WORDS_MAX || arena_filled > sizeof arena - WORD_MAX) emit_words();
}

EXPORT("shoal_map") void map(const uint8_t *at, uint32_t len, uint64_t offset) {
    (void)offset;
    uint32_t begin = 0, hash = 0;
    for (uint32_t n = 0; n <= len; n++)
        if (n == len || at[n] <= ' ') {
            if (n > begin) count(at + begin, n - begin, hash ^ hash >> 15);
            begin = n + 1;
            hash = 0;
        } else {
            hash = (hash ^ at[n]) * 0x9e3779b1;
        }
    flush();
}

static void total(void) {
    if (!sum) return;
    uint8_t digits[20];
    uint32_t len = decimal(sum, digits);
    put(key, key_len, digits + 20 - len, len);
    sum = 0;
}

EXPORT("shoal_reduce") void reduce(const uint8_t *at, uint32_t len) {
    for (uint32_t n = 0; n < len;) {
        uint32_t kl = get32(at + n), vl = get32(at + n + 4);
        const uint8_t *k = at + n + HEADER, *v = k + kl;
        if (kl != key_len || !equal(k, key, kl)) {
            total();
            if (kl > sizeof key) __builtin_trap();
            copy(key, k, kl);
            key_len = kl;
        }
        uint64_t one = 0;
        for (uint32_t d = 0; d < vl; d++) one = one * 10 + (v[d] - '0');
        sum += one;
        n += HEADER + kl + vl;
    }
    flush();
}

EXPORT("shoal_finish") void finish(void) {
    emit_words();
    total();
    flush();
}
