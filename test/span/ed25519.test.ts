import { hashes, verify as nobleVerify, Point } from '@noble/ed25519';
import { sha512 } from '@noble/hashes/sha2.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Ed25519 } from '../../src/span/ed25519.ts';
import { nobleEd25519 } from '../../src/span/ed25519-noble.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import rfc8032 from './vectors/rfc8032.json' with { type: 'json' };

hashes.sha512 = sha512;

const SCHEMES: [name: string, scheme: Ed25519][] = [
  ['OpenSSL', nodeEd25519],
  ['noble', nobleEd25519],
];
const FIELD_PRIME = 2n ** 255n - 19n;
const GROUP_ORDER = Point.CURVE().n;
const MESSAGE = bytes('the message');
const SECRET_KEY = new Uint8Array(32).fill(7);
const PUBLIC_KEY = nodeEd25519.publicKeyOf(SECRET_KEY);
const SIGNATURE = nodeEd25519.sign(MESSAGE, SECRET_KEY);

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
function unhex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}
function hex(value: Uint8Array): string {
  return Buffer.from(value).toString('hex');
}
function concat(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
function littleEndian(value: bigint): Uint8Array {
  return unhex(value.toString(16).padStart(64, '0')).reverse();
}
function toBigint(encoded: Uint8Array): bigint {
  return BigInt(`0x${hex(Uint8Array.from(encoded).reverse())}`);
}
function withBitFlipped(value: Uint8Array, bit: number): Uint8Array {
  return value.map((byte, i) => (i === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte));
}
function modulo(value: bigint): bigint {
  return ((value % GROUP_ORDER) + GROUP_ORDER) % GROUP_ORDER;
}
/** The hash of the equation, as a number. */
function challenge(r: Uint8Array, publicKey: Uint8Array, message: Uint8Array): bigint {
  return modulo(toBigint(sha512(concat(r, publicKey, message))));
}

/** Both implementations say the same, and this. */
function expectVerdict(expected: boolean, signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): void {
  for (const [name, scheme] of SCHEMES) {
    const what = `${name}: signature ${hex(signature)} key ${hex(publicKey)} message ${hex(message)}`;
    expect(scheme.verify(signature, message, publicKey), what).toBe(expected);
  }
}

describe.each(SCHEMES)('Ed25519 by %s', (_name, scheme) => {
  it.each(rfc8032.vectors)('agrees with RFC 8032 $name', (vector) => {
    const [secretKey, publicKey] = [unhex(vector.secret_key), unhex(vector.public_key)];
    const message = unhex(vector.message_lines.join(''));
    expect(hex(scheme.publicKeyOf(secretKey))).toBe(vector.public_key);
    expect(hex(scheme.sign(message, secretKey))).toBe(vector.signature);
    expect(scheme.verify(unhex(vector.signature), message, publicKey)).toBe(true);
    expect(scheme.verify(unhex(vector.signature), concat(message, bytes('!')), publicKey)).toBe(false);
  });

  it('refuses a secret key that is not 32 bytes', () => {
    for (const length of [0, 31, 33, 64]) {
      expect(() => scheme.publicKeyOf(new Uint8Array(length)), `${length} bytes`).toThrow();
      expect(() => scheme.sign(MESSAGE, new Uint8Array(length)), `${length} bytes`).toThrow();
    }
  });

  it('refuses signatures and public keys of a wrong length without throwing', () => {
    for (const length of [0, 1, 31, 33, 64])
      expect(scheme.verify(SIGNATURE, MESSAGE, new Uint8Array(length))).toBe(false);
    expect(scheme.verify(SIGNATURE, MESSAGE, concat(PUBLIC_KEY, new Uint8Array(1)))).toBe(false);
    for (const length of [0, 63, 65, 128])
      expect(scheme.verify(new Uint8Array(length), MESSAGE, PUBLIC_KEY)).toBe(false);
    expect(scheme.verify(concat(SIGNATURE, new Uint8Array(1)), MESSAGE, PUBLIC_KEY)).toBe(false);
  });

  it('refuses the signature with any one bit flipped', () => {
    for (let bit = 0; bit < 512; bit++)
      expect(scheme.verify(withBitFlipped(SIGNATURE, bit), MESSAGE, PUBLIC_KEY), `bit ${bit}`).toBe(false);
  });

  it('refuses the public key or the message with any one bit flipped', () => {
    for (let bit = 0; bit < 256; bit++)
      expect(scheme.verify(SIGNATURE, MESSAGE, withBitFlipped(PUBLIC_KEY, bit)), `bit ${bit}`).toBe(false);
    for (let bit = 0; bit < MESSAGE.length * 8; bit++) {
      expect(scheme.verify(SIGNATURE, withBitFlipped(MESSAGE, bit), PUBLIC_KEY), `bit ${bit}`).toBe(false);
    }
  });
});

describe('both implementations of Ed25519', () => {
  it('give the same key and the same signature for any secret key and message, and accept it', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.uint8Array({ maxLength: 300 }),
        (secretKey, message) => {
          const publicKey = nodeEd25519.publicKeyOf(secretKey);
          const signature = nodeEd25519.sign(message, secretKey);
          expect(hex(nobleEd25519.publicKeyOf(secretKey))).toBe(hex(publicKey));
          expect(hex(nobleEd25519.sign(message, secretKey))).toBe(hex(signature));
          expectVerdict(true, signature, message, publicKey);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('refuse random bytes alike, without throwing', () => {
    const noise = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
    const scalar = fc.bigInt({ min: 0n, max: GROUP_ORDER - 1n }).map(littleEndian);
    fc.assert(
      fc.property(
        noise(32),
        fc.oneof(noise(32), scalar),
        fc.oneof(noise(32), fc.constant(PUBLIC_KEY)),
        (r, s, publicKey) => {
          expectVerdict(false, concat(r, s), MESSAGE, publicKey);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('go on being right after more keys than are kept parsed', () => {
    for (let i = 0; i < 300; i++) {
      const secretKey = littleEndian(BigInt(i + 1));
      const signature = nodeEd25519.sign(MESSAGE, secretKey);
      expect(nodeEd25519.verify(signature, MESSAGE, nodeEd25519.publicKeyOf(secretKey))).toBe(true);
    }
    expectVerdict(true, SIGNATURE, MESSAGE, PUBLIC_KEY);
  });

  it('refuse S + L, S + 2L … and S = L: a second signature of the same message', () => {
    const [r, s] = [SIGNATURE.subarray(0, 32), toBigint(SIGNATURE.subarray(32))];
    for (let other = s + GROUP_ORDER; other < 2n ** 256n; other += GROUP_ORDER) {
      expectVerdict(false, concat(r, littleEndian(other)), MESSAGE, PUBLIC_KEY);
    }
    expectVerdict(false, concat(r, littleEndian(GROUP_ORDER)), MESSAGE, PUBLIC_KEY);
    expectVerdict(false, concat(r, littleEndian(2n ** 256n - 1n)), MESSAGE, PUBLIC_KEY);
  });
});

/** A point of order 8; its multiples are all points of small order. */
const TORSION = Point.fromHex('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a');
const SMALL_ORDER_POINTS = [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n].map((k) => TORSION.multiply(k, false));
/** Encodings of the same points that are not the shortest: y not reduced, or the sign of x = 0 set. */
const SMALL_ORDER_NON_CANONICAL = [
  littleEndian(FIELD_PRIME),
  littleEndian(FIELD_PRIME + 2n ** 255n),
  littleEndian(FIELD_PRIME + 1n),
  littleEndian(FIELD_PRIME + 1n + 2n ** 255n),
  littleEndian(1n + 2n ** 255n),
  littleEndian(FIELD_PRIME - 1n + 2n ** 255n),
];
const SMALL_ORDER = [...SMALL_ORDER_POINTS.map((point) => point.toBytes()), ...SMALL_ORDER_NON_CANONICAL];

describe('points that RFC 8032 leaves to the implementation', () => {
  it('are the eight of small order, in fourteen encodings', () => {
    expect(new Set(SMALL_ORDER.map(hex)).size).toBe(14);
    for (const encoded of SMALL_ORDER) expect(Point.fromBytes(encoded, true).isSmallOrder()).toBe(true);
  });

  it('are refused as key and as R, in all 196 pairs that ZIP-215 accepts', () => {
    const zeroS = new Uint8Array(32);
    for (const publicKey of SMALL_ORDER) {
      for (const r of SMALL_ORDER) {
        const signature = concat(r, zeroS);
        expect(nobleVerify(signature, MESSAGE, publicKey, { zip215: true })).toBe(true);
        expectVerdict(false, signature, MESSAGE, publicKey);
      }
    }
  });

  it('are refused as R of a signature by a good key', () => {
    const { scalar } = keyOf(1234n);
    const publicKey = Point.BASE.multiply(scalar).toBytes();
    for (const r of SMALL_ORDER) {
      const s = modulo(challenge(r, publicKey, MESSAGE) * scalar);
      const signature = concat(r, littleEndian(s));
      expect(nobleVerify(signature, MESSAGE, publicKey, { zip215: true })).toBe(true);
      expectVerdict(false, signature, MESSAGE, publicKey);
    }
  });

  it('are refused as a key under which every message has the same signature', () => {
    const { scalar: r, point } = keyOf(99n);
    for (const publicKey of SMALL_ORDER)
      expectVerdict(false, concat(point.toBytes(), littleEndian(r)), MESSAGE, publicKey);
  });

  it('are refused in every encoding whose y is not below the field prime', () => {
    for (let y = FIELD_PRIME; y < 2n ** 255n; y++) {
      for (const encoded of [littleEndian(y), littleEndian(y + 2n ** 255n)]) {
        expectVerdict(false, SIGNATURE, MESSAGE, encoded);
        expectVerdict(false, concat(encoded, SIGNATURE.subarray(32)), MESSAGE, PUBLIC_KEY);
      }
    }
  });
});

function keyOf(scalar: bigint): { scalar: bigint; point: Point } {
  return { scalar, point: Point.BASE.multiply(scalar) };
}

describe('points of mixed order', () => {
  const key = keyOf(modulo(0x1234567890abcdefn ** 4n));
  const nonce = keyOf(modulo(0xfedcba0987654321n ** 4n));

  it('as a key, are accepted exactly where the equation without cofactor holds', () => {
    let [accepted, refused] = [0, 0];
    for (const torsion of SMALL_ORDER_POINTS.slice(0, 7)) {
      const publicKey = key.point.add(torsion).toBytes();
      for (let i = 0; i < 16; i++) {
        const message = bytes(`message ${i}`);
        const r = nonce.point.toBytes();
        const k = challenge(r, publicKey, message);
        const signature = concat(r, littleEndian(modulo(nonce.scalar + k * key.scalar)));
        const holds = k % 8n === 0n || torsion.multiply(k, false).is0();
        expect(nobleVerify(signature, message, publicKey, { zip215: true })).toBe(true);
        expectVerdict(holds, signature, message, publicKey);
        if (holds) accepted++;
        else refused++;
      }
    }
    expect(accepted).toBeGreaterThan(0);
    expect(refused).toBeGreaterThan(0);
  });

  it('as R, are refused, though ZIP-215 accepts them', () => {
    const publicKey = key.point.toBytes();
    for (const torsion of SMALL_ORDER_POINTS.slice(0, 7)) {
      const r = nonce.point.add(torsion).toBytes();
      const s = modulo(nonce.scalar + challenge(r, publicKey, MESSAGE) * key.scalar);
      const signature = concat(r, littleEndian(s));
      expect(nobleVerify(signature, MESSAGE, publicKey, { zip215: true })).toBe(true);
      expectVerdict(false, signature, MESSAGE, publicKey);
    }
  });

  it('in key and R, are accepted by neither or by both', () => {
    for (const [i, torsion] of SMALL_ORDER_POINTS.slice(0, 7).entries()) {
      const publicKey = key.point.add(torsion).toBytes();
      const shift = SMALL_ORDER_POINTS[6 - i] as Point;
      for (let j = 0; j < 8; j++) {
        const message = bytes(`message ${j}`);
        const r = nonce.point.add(shift).toBytes();
        const k = challenge(r, publicKey, message);
        const signature = concat(r, littleEndian(modulo(nonce.scalar + k * key.scalar)));
        expectVerdict(shift.add(torsion.multiply(k, false)).is0(), signature, message, publicKey);
      }
    }
  });
});
