// Word count as a WebAssembly job (docs/wasm-abi.md), in AssemblyScript:
//
//   npm install assemblyscript
//   npx asc examples/wasm/wordcount.ts --outFile wordcount.wasm -O3 --noAssert --runtime stub
//   shoal run wordcount.wasm --input books/ --output counts

// @ts-ignore: a decorator
@external("shoal", "emit")
declare function emit(at: usize, len: u32): void;

const INPUT_BYTES: u32 = 1 << 20;
const OUTPUT_BYTES: u32 = 1 << 16;
const HEADER_BYTES: u32 = 8;
const input = memory.data(1 << 20);
const output = memory.data(1 << 16);
const key = memory.data(1 << 16);
const digits = memory.data(20);
let filled: u32 = 0;
let keyLen: u32 = 0;
let sum: u64 = 0;

function flush(): void {
  if (filled > 0) emit(output, filled);
  filled = 0;
}

// Words are short: a loop is quicker than a call.
function copy(to: usize, from: usize, len: u32): void {
  for (let n: u32 = 0; n < len; n++) store<u8>(to + n, load<u8>(from + n));
}

function put(k: usize, kl: u32, v: usize, vl: u32): void {
  const bytes = HEADER_BYTES + kl + vl;
  if (bytes > OUTPUT_BYTES) unreachable();
  if (filled + bytes > OUTPUT_BYTES) flush();
  const at = output + filled;
  store<u32>(at, kl);
  store<u32>(at + 4, vl);
  copy(at + HEADER_BYTES, k, kl);
  copy(at + HEADER_BYTES + kl, v, vl);
  filled += bytes;
}

function total(): void {
  if (sum == 0) return;
  let n: u32 = 20;
  for (; sum > 0; sum /= 10) store<u8>(digits + --n, <u8>(48 + (sum % 10)));
  put(key, keyLen, digits + n, 20 - n);
}

export function shoal_abi(): u32 {
  return 1;
}

export function shoal_input(len: u32): usize {
  return len <= INPUT_BYTES ? input : 0;
}

export function shoal_map(at: usize, len: u32, offset: u64): void {
  store<u8>(digits, 49);
  let begin: u32 = 0;
  for (let n: u32 = 0; n <= len; n++) {
    if (n == len || load<u8>(at + n) <= 32) {
      if (n > begin) put(at + begin, n - begin, digits, 1);
      begin = n + 1;
    }
  }
  flush();
}

export function shoal_reduce(at: usize, len: u32): void {
  let n: u32 = 0;
  while (n < len) {
    const kl = load<u32>(at + n);
    const vl = load<u32>(at + n + 4);
    const k = at + n + HEADER_BYTES;
    const v = k + kl;
    if (kl != keyLen || memory.compare(k, key, kl) != 0) {
      total();
      if (kl > OUTPUT_BYTES) unreachable();
      copy(key, k, kl);
      keyLen = kl;
    }
    let value: u64 = 0;
    for (let d: u32 = 0; d < vl; d++) value = value * 10 + load<u8>(v + d) - 48;
    sum += value;
    n += HEADER_BYTES + kl + vl;
  }
  flush();
}

export function shoal_finish(): void {
  total();
  flush();
}
