/* Word count as a WebAssembly job (docs/wasm-abi.md). With Debian's clang, lld, wasi-libc and
 * libclang-rt-dev-wasm32; without the last two by the second line, as nothing of libc is used:
 *
 *   clang --target=wasm32-wasi -O2 -fno-builtin -mexec-model=reactor -o wordcount.wasm examples/wasm/wordcount.c
 *   clang --target=wasm32 -O2 -fno-builtin -nostdlib -Wl,--no-entry -o wordcount.wasm examples/wasm/wordcount.c
 *   shoal run wordcount.wasm --input books/ --output counts
 */
#include <stdint.h>

#define IMPORT(n) __attribute__((import_module("shoal"), import_name(n)))
#define EXPORT(n) __attribute__((export_name(n)))

IMPORT("emit") void emit(const void *at, uint32_t len);

enum { HEADER = 8 };
static uint8_t input[1 << 20], output[1 << 16], key[1 << 16];
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

EXPORT("shoal_map") void map(const uint8_t *at, uint32_t len, uint64_t offset) {
    (void)offset;
    uint32_t begin = 0;
    for (uint32_t n = 0; n <= len; n++)
        if (n == len || at[n] <= ' ') {
            if (n > begin) put(at + begin, n - begin, (const uint8_t *)"1", 1);
            begin = n + 1;
        }
    flush();
}

static void total(void) {
    if (!sum) return;
    uint8_t digits[20];
    uint32_t n = sizeof digits;
    for (; sum; sum /= 10) digits[--n] = '0' + sum % 10;
    put(key, key_len, digits + n, sizeof digits - n);
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
    total();
    flush();
}
