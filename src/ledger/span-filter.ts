import type { Identity, Row } from './database.ts';

/** Spans one page may hold. */
export const PAGE_MAX = 1_000;
/**
 * A page takes no further span once it has so many bytes: a thousand spans may have a thousand times as much as one. With
 * the last of them, and with the names of columns, it fits the 6 MB that a Lambda function may answer.
 */
const PAGE_BYTES_MAX = 4 * 1024 * 1024;

/** Columns that spans are looked for by. */
export type FilterColumn =
  | 'entity_type'
  | 'status'
  | 'name'
  | 'parent_id'
  | 'caused_by'
  | 'trace_id'
  | 'owner_id'
  | 'visibility';

/** What the columns of a span must say, and `at`: not before `from`, and before `to`. */
export type SpanFilter = { [column in FilterColumn | 'from' | 'to']?: string | undefined };

const SIDES: Record<string, string> = { from: 'at >=', to: 'at <' };

/** A filter as conditions on `r`, whose parameters follow after `values`. */
export function filterConditions(filter: SpanFilter, values: unknown[]): string[] {
  const conditions: string[] = [];
  for (const [column, value] of Object.entries(filter)) {
    if (value !== undefined) conditions.push(`r.${SIDES[column] ?? `${column} =`} $${values.push(value)}`);
  }
  return conditions;
}

/** Places of a view's rows that the identity may see, in the order of the timeline, at most `limit`. */
interface VisiblePlaces {
  view: 'ledger.settled_timeline' | 'ledger.current_span';
  conditions: string[];
  direction: 'asc' | 'desc';
  limit: number;
}

/** Which version it is, and where it stands. */
export type PlaceRow = { id: string; seq: number; tx_id: string; position: number };

/**
 * The statement that finds them, as `PlaceRow`s. Row security alone would have the database pass over the rows of all
 * other tenants; said twice, it reads those of the identity's tenant and the public ones, each by an index in this order.
 */
export function visiblePlacesText(
  { tenantId }: Identity,
  { view, conditions, direction, limit }: VisiblePlaces,
  values: unknown[],
): string {
  const tenant = `$${values.push(tenantId)}`;
  const end = `order by r.tx_id ${direction}, r.position ${direction} limit $${values.push(limit)}`;
  const [own, published] = [`r.tenant_id = ${tenant}`, `r.visibility = 'public' and r.tenant_id <> ${tenant}`].map(
    (whose) =>
      `(select r.id, r.seq, r.tx_id, r.position from ${view} r where ${[whose, ...conditions].join(' and ')} ${end})`,
  );
  return `select r.* from (${own} union all ${published}) r ${end}`;
}

/**
 * Rows of the places that a statement finds, in its order, as far as one page may hold their bytes: at least one. What is
 * beyond that is not read: a thousand spans may have a gigabyte.
 */
export function pageText(places: string, bytesMax = PAGE_BYTES_MAX): string {
  return `with place as materialized (${places})
          select r.*, (select count(*) from place) as found
            from ledger.rows_within(array(select id from place), array(select seq from place), ${bytesMax})
                 with ordinality r
           order by r.ordinality`;
}

/** The rows of a page, and whether its bytes kept others from it. */
export function readPage(found: Row[]): { rows: Row[]; isCut: boolean } {
  const rows = found.map(({ found: _found, ordinality: _ordinality, ...row }) => row);
  return { rows, isCut: rows.length < Number(found[0]?.found ?? 0) };
}
