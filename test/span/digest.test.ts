import { blake3 } from '@noble/hashes/blake3.js';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { loadBlake3 } from '../../src/span/blake3-wasm.ts';
import { blake3Hex, useBlake3 } from '../../src/span/index.ts';

const wasm = await loadBlake3();
afterAll(() => useBlake3(blake3));

describe('the two implementations of BLAKE3', () => {
  // https://github.com/BLAKE3-team/BLAKE3/blob/master/test_vectors/test_vectors.json: bytes 0, 1, … 250, 0, 1, …
  it.each([
    [0, 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'],
    [1, '2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213'],
    [1023, '10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11'],
    [1024, '42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7'],
    [1025, 'd00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444'],
  ])('give the published hash of %i bytes', (length, expected) => {
    const bytes = Uint8Array.from({ length }, (_, i) => i % 251);
    expect(Buffer.from(wasm(bytes)).toString('hex')).toBe(expected);
    expect(Buffer.from(blake3(bytes)).toString('hex')).toBe(expected);
  });

  it('are equal on any bytes, also one after the other', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 5_000 }), { minLength: 1, maxLength: 4 }), (all) => {
        const kept = all.map((bytes) => wasm(bytes));
        expect(kept).toEqual(all.map((bytes) => blake3(bytes)));
      }),
    );
  });

  it('make the same span hash, whichever is in use', () => {
    const text = '{"who":"ana","content":"ü€𝄞"}'.repeat(100);
    const portable = blake3Hex(text);
    useBlake3(wasm);
    expect(blake3Hex(text)).toBe(portable);
  });
});
