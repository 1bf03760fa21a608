import type { Identity, Row } from './database.ts';

/** Spans one page may hold. */
export const PAGE_MAX = 1_000;
/** A page takes no further span once it has so many bytes: a thousand spans may have a thousand times as much as one. */
const PAGE_BYTES_MAX = 8 * 1024 * 1024;

/** Columns that spans are looked for by. */
export type FilterColumn = 'entity_type' | 'status' | 'name' | 'parent_id' | 'caused_by' | 'trace_id' | 'owner_id';

/** What the columns of a span must say. */
export type SpanFilter = { [column in FilterColumn]?: string | undefined };

/** A filter as conditions on `r`, whose parameters follow after `values`. */
export function filterConditions(filter: SpanFilter, values: unknown[]): string[] {
  const conditions: string[] = [];
  for (const [column, value] of Object.entries(filter)) {
    if (value !== undefined) conditions.push(`r.${column} = $${values.push(value)}`);
  }
  return conditions;
}

/** Rows of a view that the identity may see, in the order of the timeline, at most `limit`. */
interface VisibleRows {
  columns: string;
  view: 'ledger.settled_timeline' | 'ledger.current_span';
  conditions: string[];
  direction: 'asc' | 'desc';
  limit: number;
}

/**
 * The statement that finds them. Row security alone would have the database pass over the rows of all other tenants;
 * said twice, it reads those of the identity's tenant and the public ones, each by an index in this order.
 */
export function visibleRowsText(
  { tenantId }: Identity,
  { columns, view, conditions, direction, limit }: VisibleRows,
  values: unknown[],
): string {
  const tenant = `$${values.push(tenantId)}`;
  const end = `order by r.tx_id ${direction}, r.position ${direction} limit $${values.push(limit)}`;
  const [own, published] = [`r.tenant_id = ${tenant}`, `r.visibility = 'public' and r.tenant_id <> ${tenant}`].map(
    (whose) => `(select ${columns} from ${view} r where ${[whose, ...conditions].join(' and ')} ${end})`,
  );
  return `select r.* from (${own} union all ${published}) r ${end}`;
}

/**
 * Rows as far as one page may hold their bytes, at least one. `order` is theirs, by columns of `r`. By their text, because
 * what `pg_column_size` counts may be compressed.
 */
export function pageText(rows: string, order: string): string {
  return `select * from (
            select r.*, count(*) over () as found, coalesce(sum(octet_length(r::text)) over (
                     order by ${order} rows between unbounded preceding and 1 preceding), 0) as bytes_before
              from (${rows}) r
          ) r where r.bytes_before < ${PAGE_BYTES_MAX} order by ${order}`;
}

/** The rows of a page, and whether its bytes kept others from it. */
export function readPage(found: Row[]): { rows: Row[]; isCut: boolean } {
  const rows = found.map(({ found: _found, bytes_before: _bytes, ...row }) => row);
  return { rows, isCut: rows.length < Number(found[0]?.found ?? 0) };
}
