/** Spans one page may hold. */
export const PAGE_MAX = 1_000;

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
