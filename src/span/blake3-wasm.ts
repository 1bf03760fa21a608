import { createBLAKE3 } from 'hash-wasm';
import type { Blake3 } from './digest.ts';

/**
 * BLAKE3 in WebAssembly, about 7 times the speed of the portable one: for processes that hash all day. It takes a few
 * milliseconds to be there, so nobody has to wait for it: the portable one serves until then.
 */
export async function loadBlake3(): Promise<Blake3> {
  const hasher = await createBLAKE3();
  return (bytes) => hasher.init().update(bytes).digest('binary');
}
