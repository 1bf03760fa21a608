import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.ts';
import { APPEND_BATCH_MAX } from '../../src/ledger/append.ts';
import {
  appendSpans,
  type Database,
  readLatestVersions,
  readVersions,
  type SpanDraft,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { nodeEd25519 } from '../../src/span/ed25519-node.ts';
import {
  COLUMN_TYPES,
  type ColumnName,
  canonicalText,
  type Span,
  type StoredSpan,
  verifySpan,
} from '../../src/span/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { runtimeSigner, trustedKeys } from '../support/keys.ts';
import { ALICE, BOB, contextOf, draft, FULL_DRAFT, hashable, NOW } from '../support/spans.ts';

const EXISTING = randomUUID();
let testDatabase: TestDatabase;
let database: Database;
beforeAll(async () => {
  testDatabase = await createTestDatabase();
  database = testDatabase.open('loglineos_app');
});
afterAll(() => testDatabase.close());

async function countRows(): Promise<number> {
  const [row] = await testDatabase
    .open('admin')
    .query<{ n: number }>({ text: 'select count(*)::int as n from ledger.universal_registry' });
  return row?.n as number;
}

async function readOnly(id: string): Promise<StoredSpan> {
  const versions = await readVersions(database, ALICE, id);
  expect(versions).toHaveLength(1);
  return versions[0] as StoredSpan;
}

/** A draft as it should come back: without its empty columns, and with 0 for -0. Made without JSON.parse, see below. */
function asStored(said: SpanDraft): Record<string, unknown> {
  const columns = Object.entries(said).filter(([, value]) => value !== null && value !== undefined);
  return Object.fromEntries(columns.map(([name, value]) => [name, withoutNegativeZero(value)]));
}

function withoutNegativeZero(value: unknown): unknown {
  if (value === 0) return 0;
  if (Array.isArray(value)) return value.map(withoutNegativeZero);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withoutNegativeZero(item)]));
}

describe('appendSpans', () => {
  it('completes a draft with what the caller left out', async () => {
    const [appended] = await appendSpans(database, [draft()], contextOf(ALICE));
    const span = await readOnly((appended as { id: string }).id);
    expect(span).toEqual({
      ...draft(),
      ...(appended as object),
      seq: 0,
      who: 'alice',
      at: NOW,
      owner_id: 'alice',
      tenant_id: 'acme',
      visibility: 'private',
      public_key: runtimeSigner.publicKey,
      signature: expect.stringMatching(/^[0-9a-f]{128}$/),
      position: expect.any(Number),
      tx_id: expect.stringMatching(/^\d+$/),
    });
  });

  it('brings every column back as it was sent', async () => {
    const [appended] = await appendSpans(database, [FULL_DRAFT], contextOf(ALICE));
    const span = await readOnly(appended?.id as string);
    expect(span).toMatchObject(asStored(FULL_DRAFT));
    expect(Object.keys(COLUMN_TYPES).filter((name) => !(name in span))).toEqual(['prev_hash']);
    expect(verifySpan(span, trustedKeys, nodeEd25519)).toEqual([]);
  });

  it('makes the next version of a span whose id exists, and keeps its visibility', async () => {
    const [first] = await appendSpans(database, [draft({ visibility: 'tenant' })], contextOf(ALICE));
    const [second] = await appendSpans(
      database,
      [draft({ id: first?.id as string, status: 'done' })],
      contextOf(ALICE),
    );
    expect(second).toMatchObject({ id: first?.id, seq: 1 });
    const latest = await readLatestVersions(database, ALICE, [first?.id as string]);
    expect(latest.get(first?.id as string)).toMatchObject({
      seq: 1,
      prev_hash: first?.curr_hash,
      visibility: 'tenant',
      status: 'done',
    });
  });

  it('takes several versions of one span in one batch, new or old', async () => {
    const [id, other] = [randomUUID(), randomUUID()];
    await appendSpans(database, [draft({ id: other })], contextOf(ALICE));
    const drafts = [
      draft({ id, seq: 0 }),
      draft({ id }),
      draft({ id: other }),
      draft({ id, seq: 2 }),
      draft({ id: other }),
    ];
    const appended = await appendSpans(database, drafts, contextOf(ALICE));
    expect(appended.map(({ seq }) => seq)).toEqual([0, 1, 1, 2, 2]);
  });

  it('appends a thousand at once and refuses none or more', async () => {
    const many = Array.from({ length: APPEND_BATCH_MAX }, () => draft());
    expect(await appendSpans(database, many, contextOf(BOB))).toHaveLength(APPEND_BATCH_MAX);
    await expect(appendSpans(database, [...many, draft()], contextOf(BOB))).rejects.toMatchObject({
      code: 'BATCH_SIZE',
    });
    await expect(appendSpans(database, [], contextOf(BOB))).rejects.toMatchObject({ code: 'BATCH_SIZE' });
  });

  it('writes nothing of a batch whose last span is bad', async () => {
    const before = await countRows();
    const bad = draft({ input: { deep: [Number.NaN] } });
    await expect(appendSpans(database, [draft(), draft(), bad], contextOf(ALICE))).rejects.toMatchObject({
      field: 'input.deep[0]',
    });
    const foreign = draft({ tenant_id: 'bolt' });
    await expect(appendSpans(database, [draft(), foreign], contextOf(ALICE))).rejects.toMatchObject({
      name: 'AccessError',
    });
    expect(await countRows()).toBe(before);
  });

  it('says that a first version is taken, also when it stands in the same batch', async () => {
    const before = await countRows();
    const twice = draft({ id: randomUUID(), seq: 0 });
    await expect(appendSpans(database, [twice, twice], contextOf(ALICE))).rejects.toMatchObject({ code: 'SEQ_TAKEN' });
    expect(await countRows()).toBe(before);
    await appendSpans(database, [twice], contextOf(ALICE));
    await expect(appendSpans(database, [twice], contextOf(ALICE))).rejects.toMatchObject({ code: 'SEQ_TAKEN' });
  });

  it.each(['position', 'tx_id', 'prev_hash', 'curr_hash', 'signature', 'public_key'])(
    'refuses a draft that brings its own %s',
    async (field) => {
      const forged = draft({ [field]: field === 'position' ? 1 : 'ab'.repeat(32) });
      await expect(appendSpans(database, [forged], contextOf(ALICE))).rejects.toMatchObject({
        code: 'FIELD_IS_ASSIGNED',
        field,
      });
    },
  );

  it.each<[what: string, said: Record<string, unknown>, kind: string]>([
    ['no entity_type', { entity_type: undefined }, 'input'],
    ['an empty entity_type', { entity_type: '' }, 'input'],
    ['an empty who', { who: '' }, 'input'],
    ['an unknown visibility', { visibility: 'secret' }, 'input'],
    ['an unknown column', { colour: 'red' }, 'input'],
    ['a wrong type', { priority: 'high' }, 'input'],
    ['a negative seq', { seq: -1 }, 'conflict'],
    ['a first version that is not 0', { seq: 3 }, 'conflict'],
    ['a version after a gap', { id: EXISTING, seq: 2 }, 'conflict'],
    ['another’s owner_id', { owner_id: 'alan' }, 'access'],
    ['another’s tenant_id', { tenant_id: 'bolt' }, 'access'],
    ['a public row', { visibility: 'public' }, 'access'],
  ])('refuses %s, with nothing written', async (_what, said, kind) => {
    await appendSpans(database, [draft({ id: EXISTING, seq: 0 })], contextOf(ALICE)).catch(() => {});
    const before = await countRows();
    await expect(appendSpans(database, [draft(said)], contextOf(ALICE))).rejects.toMatchObject({ kind });
    expect(await countRows()).toBe(before);
  });

  it('brings keys that JSON must escape back, whatever was parsed before', async () => {
    // V8 misreads such a key after it parsed one that ends in a backslash: https://github.com/nodejs/node/issues/63785
    JSON.parse(String.raw`{"!": [], "\\": 0}`);
    const input = { '!': 1, '"': 2 };
    const [appended] = await appendSpans(database, [draft({ input })], contextOf(ALICE));
    const span = await readOnly(appended?.id as string);
    expect(Object.entries(span.input as object)).toEqual(Object.entries(input));
    expect(verifySpan(span, trustedKeys, nodeEd25519)).toEqual([]);
  });
});

/** Values worth a try beside random ones. */
const NUMBERS = [
  0,
  -0,
  0.1,
  1e-7,
  5e-324,
  1e21,
  1.5e300,
  2 ** 53 - 1,
  2 ** 53,
  -(2 ** 53),
  123456789.12345678,
  1e-300,
  4503599627370495.5,
];
const TEXTS = [
  '',
  '1.0',
  'null',
  'NULL',
  '{}',
  '"',
  '\\',
  '\\u0000',
  '\0',
  '\ud800',
  'é',
  'e\u0301',
  '😀',
  '\u2028',
  '\ufeff',
  '\uffff',
  '2026-01-01',
];
const KEYS = ['__proto__', 'constructor', 'toJSON', 'length', '1', '10', '01', ...TEXTS];

/** Any text, storable or not. */
const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)), maxLength: 4 }),
  fc.constantFrom(...TEXTS),
);
const number = fc.oneof(fc.double(), fc.maxSafeInteger(), fc.constantFrom(...NUMBERS));
const json = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.constantFrom(null, true, false),
    number,
    text,
    tie('list'),
    tie('object'),
  ),
  list: fc.array(tie('value'), { maxLength: 4 }),
  object: fc
    .array(fc.tuple(fc.oneof(text, fc.constantFrom(...KEYS)), tie('value')), { maxLength: 4 })
    // Not an assignment: that would set the prototype for the key __proto__.
    .map((entries) => Object.fromEntries(entries)),
})).value;

const ANY_OF_TYPE: Record<string, fc.Arbitrary<unknown>> = {
  text,
  uuid: fc.uuid(),
  integer: fc.oneof(fc.integer(), fc.constantFrom(2 ** 31 - 1, -(2 ** 31) + 1, 2 ** 31, -0)),
  bigint: fc.oneof(fc.maxSafeInteger(), number),
  'double precision': number,
  boolean: fc.boolean(),
  jsonb: json,
  timestamptz: fc.oneof(
    fc
      .date({ min: new Date('0001-01-01T00:00:00Z'), max: new Date('9999-12-31T23:59:59.999Z'), noInvalidDate: true })
      .map((date) => date.toISOString()),
    fc.date({ noInvalidDate: true }).map((date) => date.toISOString()),
  ),
  'text[]': fc.array(text, { maxLength: 4 }),
  'uuid[]': fc.array(fc.uuid(), { maxLength: 4 }),
};
const ASSIGNED = new Set([
  'seq',
  'position',
  'tx_id',
  'owner_id',
  'tenant_id',
  'visibility',
  'prev_hash',
  'curr_hash',
  'signature',
  'public_key',
]);
const COLUMNS = (Object.keys(COLUMN_TYPES) as ColumnName[]).filter((name) => !ASSIGNED.has(name) && name !== 'id');
const anyValueOf = (name: ColumnName) =>
  (ANY_OF_TYPE[COLUMN_TYPES[name]] as fc.Arbitrary<unknown>).filter(
    (value) => !((name === 'entity_type' || name === 'who') && value === ''),
  );
/** A draft with a storable value, or none, in every column. */
const anyDraft = fc.record(
  Object.fromEntries(
    COLUMNS.map((name) => [
      name,
      fc.option(
        anyValueOf(name).filter((value) => isStorable({ [name]: value })),
        { nil: undefined },
      ),
    ]),
  ),
);

function isStorable(more: Span): boolean {
  try {
    canonicalText(hashable(more));
    return true;
  } catch {
    return false;
  }
}

/** Append it; what is accepted must come back proving itself, what is not must be the caller's mistake and leave nothing. */
async function expectSurvivalOrRefusal(said: SpanDraft): Promise<'survived' | 'refused'> {
  const id = randomUUID();
  try {
    await appendSpans(database, [{ ...said, id }], contextOf(ALICE));
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    expect((error as InputError).field).toBeTypeOf('string');
    expect(await readVersions(database, ALICE, id)).toEqual([]);
    return 'refused';
  }
  const span = await readOnly(id);
  expect(verifySpan(span, trustedKeys, nodeEd25519)).toEqual([]);
  expect(span).toMatchObject(asStored({ ...said, id }));
  return 'survived';
}

describe('whatever JSON append is given', () => {
  it('either verifies after being read back or is refused with nothing written, in a jsonb column', async () => {
    const seen = { survived: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(json, fc.constantFrom<'input' | 'metadata'>('input', 'metadata'), async (value, column) => {
        seen[await expectSurvivalOrRefusal(draft({ [column]: value }))]++;
      }),
      { numRuns: 500 },
    );
    expect(seen.survived).toBeGreaterThan(100);
    expect(seen.refused).toBeGreaterThan(20);
  });

  it('either verifies after being read back or is refused with nothing written, in any other column', async () => {
    const oneColumn = fc.constantFrom(...COLUMNS).chain((name) => fc.tuple(fc.constant(name), anyValueOf(name)));
    const seen = { survived: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(oneColumn, async ([name, value]) => {
        seen[await expectSurvivalOrRefusal(draft({ [name]: value }))]++;
      }),
      { numRuns: 500 },
    );
    expect(seen.survived).toBeGreaterThan(100);
    expect(seen.refused).toBeGreaterThan(20);
  });

  it('verifies after being read back, all columns together', async () => {
    await fc.assert(
      fc.asyncProperty(anyDraft, async (said) => {
        const whole = { ...said, entity_type: said.entity_type ?? 'any' } as SpanDraft;
        expect(await expectSurvivalOrRefusal(whole)).toBe('survived');
      }),
      { numRuns: 150 },
    );
  });

  it('leaves a ledger that verifies', async () => {
    const auditor = testDatabase.open('loglineos_auditor');
    const report = await verifyLedger(auditor, trustedKeys, nodeEd25519);
    expect(report.problems.slice(0, 3)).toEqual([]);
    expect(report.checked).toBe(await countRows());
  });
});
