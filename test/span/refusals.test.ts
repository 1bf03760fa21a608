import { describe, expect, it } from 'vitest';
import { JSON_DEPTH_MAX } from '../../src/span/canonical.ts';
import {
  COLUMN_TYPES,
  type ColumnName,
  canonicalText,
  type HashableSpan,
  SPAN_LENGTH_MAX,
} from '../../src/span/index.ts';
import { hashable } from '../support/spans.ts';

function text(more: Record<string, unknown>): string {
  return canonicalText({ ...hashable(), ...more } as HashableSpan);
}

function expectRefusal(more: Record<string, unknown>, code: string, field: string): void {
  expect(() => text(more)).toThrow(
    expect.objectContaining({ name: 'InputError', code, field, message: expect.stringContaining(field) }),
  );
}

function nested(depth: number): unknown {
  let value: unknown = 1;
  for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { a: value };
  return value;
}

/** A list of three whose second item was never set. */
function withHole<T>(first: T, third: T): T[] {
  return Object.assign(new Array(3), { 0: first, 2: third });
}

class Box {
  content = 1;
}

describe('a value that would not come back the same is refused, by the path of its field:', () => {
  it.each<[what: string, value: unknown, field: string]>([
    ['an integer beyond 2^53-1', { a: [1, { b: 2 ** 53 }] }, 'input.a[1].b'],
    ['a negative integer beyond 2^53-1', [-(2 ** 53)], 'input[0]'],
    ['NaN', { a: Number.NaN }, 'input.a'],
    ['Infinity', [Number.POSITIVE_INFINITY], 'input[0]'],
    ['a bigint', { a: 1n }, 'input.a'],
    ['undefined in an object', { a: undefined }, 'input.a'],
    ['undefined in a list', [1, undefined], 'input[1]'],
    ['a hole in a list', withHole(1, 3), 'input[1]'],
    ['a function', { a: () => 1 }, 'input.a'],
    ['a symbol', { a: Symbol('s') }, 'input.a'],
    ['a Date', { a: new Date(0) }, 'input.a'],
    ['a Map', { a: new Map() }, 'input.a'],
    ['a Uint8Array', { a: new Uint8Array(2) }, 'input.a'],
    ['an instance of a class', { a: new Box() }, 'input.a'],
    ['a boxed string', { a: Object('s') }, 'input.a'],
    ['U+0000 in a string', { a: 'x\0y' }, 'input.a'],
    ['U+0000 in a key', { 'x\0': 1 }, 'input.x\0'],
    ['a lone high surrogate', { a: 'x\ud800' }, 'input.a'],
    ['a lone low surrogate', ['\udc00x'], 'input[0]'],
    ['surrogates in the wrong order', ['\ude00\ud83d'], 'input[0]'],
    ['a lone surrogate in a key', { '\ud800': 1 }, 'input.\ud800'],
    ['something unstorable below __proto__', JSON.parse('{"__proto__": {"a": 1e300}}'), 'input.__proto__.a'],
  ])('%s', (_what, input, field) => {
    expectRefusal({ input }, 'VALUE_NOT_STORABLE', field);
  });

  it('the same in each jsonb column', () => {
    for (const name of columnsOf('jsonb'))
      expectRefusal({ [name]: { a: [Number.NaN] } }, 'VALUE_NOT_STORABLE', `${name}.a[0]`);
  });

  it('U+0000 and lone surrogates in each text column and in a list of texts', () => {
    for (const name of columnsOf('text').filter((name) => name !== 'curr_hash' && name !== 'signature')) {
      expectRefusal({ [name]: 'a\0b' }, 'VALUE_NOT_STORABLE', name);
      expectRefusal({ [name]: '\ud800' }, 'VALUE_NOT_STORABLE', name);
    }
    expectRefusal({ tags: ['ok', 'a\0b'] }, 'VALUE_NOT_STORABLE', 'tags[1]');
  });

  it('a bigint column beyond 2^53-1, and a float that is not finite', () => {
    expectRefusal({ memory_bytes: 2 ** 53 }, 'VALUE_NOT_STORABLE', 'memory_bytes');
    expectRefusal({ score: Number.NaN }, 'VALUE_NOT_STORABLE', 'score');
    expectRefusal({ score: Number.NEGATIVE_INFINITY }, 'VALUE_NOT_STORABLE', 'score');
  });

  it('nesting beyond the limit, and not nesting at it', () => {
    expect(text({ content: nested(JSON_DEPTH_MAX) })).toContain('"content"');
    expect(() => text({ content: nested(JSON_DEPTH_MAX + 1) })).toThrow(/content.*nested deeper than 64/);
  });

  it('a list that contains itself', () => {
    const list: unknown[] = [];
    list.push(list);
    expect(() => text({ content: list })).toThrow(/nested deeper/);
  });
});

describe('a span', () => {
  it('has a canonical text of at most SPAN_LENGTH_MAX characters', () => {
    const span = hashable({ code: '' });
    const room = SPAN_LENGTH_MAX - canonicalText(span).length;
    expect(canonicalText({ ...span, code: 'x'.repeat(room) })).toHaveLength(SPAN_LENGTH_MAX);
    expect(() => canonicalText({ ...span, code: 'x'.repeat(room + 1) })).toThrow(
      expect.objectContaining({ code: 'SPAN_TOO_LARGE' }),
    );
  });

  it.each(['foo', 'toString', 'ID', 'when', 'this '])('has no column %j', (name) => {
    expectRefusal({ [name]: 'x' }, 'UNKNOWN_COLUMN', name);
  });

  it('has no column __proto__', () => {
    const span = Object.assign(JSON.parse('{"__proto__": 1}'), {});
    expect(() => canonicalText(span)).toThrow(expect.objectContaining({ code: 'UNKNOWN_COLUMN', field: '__proto__' }));
  });
});

const WRONG: Record<(typeof COLUMN_TYPES)[ColumnName], unknown[]> = {
  text: [1, true, {}, ['a'], Object('boxed')],
  uuid: [
    '',
    'x',
    '6F1A4C52-8F3B-4D7E-9A01-2B3C4D5E6F70',
    '{6f1a4c52-8f3b-4d7e-9a01-2b3c4d5e6f70}',
    7,
    '6f1a4c52-8f3b-4d7e-9a01-2b3c4d5e6f70\n',
  ],
  integer: [1.5, 2 ** 31, -(2 ** 31), '1', Number.NaN, 1n, [1], true],
  bigint: [1.5, '9007199254740993', 1n, Number.NaN, [1]],
  xid8: ['700', 700],
  timestamptz: [],
  boolean: ['true', 0, 1, 't'],
  jsonb: [],
  'double precision': ['1.5', true, [1], 1n],
  'text[]': ['a', {}, [1], [null], [undefined], [['a']], new Set(['a'])],
  'uuid[]': ['6f1a4c52-8f3b-4d7e-9a01-2b3c4d5e6f70', ['x'], [null]],
};
const NOT_HASHED: ReadonlySet<string> = new Set(['position', 'tx_id', 'curr_hash', 'signature']);

function columnsOf(type: string): ColumnName[] {
  return (Object.keys(COLUMN_TYPES) as ColumnName[]).filter((name) => COLUMN_TYPES[name] === type);
}

describe('a value of the wrong type is refused, naming the column:', () => {
  it.each(
    (Object.keys(COLUMN_TYPES) as ColumnName[]).filter(
      (name) => !NOT_HASHED.has(name) && WRONG[COLUMN_TYPES[name]].length > 0,
    ),
  )('%s', (name) => {
    for (const value of WRONG[COLUMN_TYPES[name]]) {
      expect(
        () => text({ [name]: value }),
        `${name} = ${String(JSON.stringify(Array.isArray(value) ? [...value] : String(value)))}`,
      ).toThrow(
        expect.objectContaining({
          code: 'TYPE_MISMATCH',
          field: expect.stringMatching(new RegExp(`^${name}(\\[\\d+\\])?$`)),
        }),
      );
    }
  });
});

it('a list column with holes is refused, naming the hole', () => {
  expectRefusal({ tags: withHole('a', 'b') }, 'TYPE_MISMATCH', 'tags[1]');
  expectRefusal({ tags: new Array(2) }, 'TYPE_MISMATCH', 'tags[0]');
  expectRefusal({ related_to: new Array(1) }, 'TYPE_MISMATCH', 'related_to[0]');
});

describe('a time', () => {
  it.each([
    '2026-11-23T10:00:00.000Z',
    '2024-02-29T23:59:59.999Z',
    '0001-01-01T00:00:00.000Z',
    '9999-12-31T23:59:59.999Z',
    '1900-01-01T00:00:00.001Z',
  ])('may be %s', (at) => {
    expect(text({ at })).toContain(`"at":"${at}"`);
  });

  it.each([
    '2026-11-23T10:00:00Z',
    '2026-11-23T10:00:00.0Z',
    '2026-11-23T10:00:00.000000Z',
    '2026-11-23T10:00:00.000+00:00',
    '2026-11-23T10:00:00.000+02:00',
    '2026-11-23 10:00:00.000Z',
    '2026-11-23t10:00:00.000z',
    '2026-11-23T10:00:00.000Z\n',
    '2026-11-23',
    '2026-02-29T00:00:00.000Z',
    '2026-13-01T00:00:00.000Z',
    '2026-00-01T00:00:00.000Z',
    '2026-04-31T00:00:00.000Z',
    '2026-11-23T24:00:00.000Z',
    '2026-11-23T10:60:00.000Z',
    '2016-12-31T23:59:60.000Z',
    '0000-01-01T00:00:00.000Z',
    '+02026-11-23T10:00:00.000Z',
    '-0001-01-01T00:00:00.000Z',
    'infinity',
    'now',
    '',
  ])('may not be %j', (at) => {
    for (const field of columnsOf('timestamptz')) expectRefusal({ [field]: at }, 'TYPE_MISMATCH', field);
  });

  it('may not be a Date or a number', () => {
    expectRefusal({ at: new Date(0) }, 'TYPE_MISMATCH', 'at');
    expectRefusal({ at: 0 }, 'TYPE_MISMATCH', 'at');
  });
});
