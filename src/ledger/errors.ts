import {
  AccessError,
  ConflictError,
  GovernanceError,
  InputError,
  IntegrityError,
  LogLineError,
  UpstreamError,
} from '../errors.ts';

interface PostgresError {
  code?: string;
  constraint?: string;
  column?: string;
  message: string;
}

/**
 * What a Postgres error means to the caller, wrapped once where it enters. LLnnn are our own SQLSTATEs (`sql/`); the
 * others are of the Postgres manual, appendix A. The text of an unknown error is not passed on: it may hold SQL.
 */
export function wrapPostgresError(cause: unknown): LogLineError {
  if (cause instanceof LogLineError) return cause;
  const error = cause as PostgresError;
  switch (error.code) {
    case 'LL001':
      return new IntegrityError('APPEND_ONLY', error.message, { cause });
    case 'LL002':
      return new ConflictError('SEQ_GAP', error.message, { field: 'seq', cause });
    case 'LL003':
      return new AccessError('NOT_YOUR_SPAN', error.message, { cause });
    case 'LL004':
      return new ConflictError('CHAIN_BROKEN', error.message, { field: 'prev_hash', cause });
    case 'LL006':
      return new GovernanceError('QUOTA_EXCEEDED', error.message, { cause });
    case 'LL007':
      return new InputError('PROOF_MALFORMED', error.message, { cause });
    case 'LL008':
      return new InputError('CONSTRAINT_VIOLATED', error.message, { ...fieldOf(error.column), cause });
    case 'LL010':
      return new ConflictError('REQUEST_CLOSED', error.message, { field: 'status', cause });
    case 'LL011':
      return new ConflictError('LEDGER_IN_USE', error.message, { cause });
    case '3F000':
    case '42P01':
      return new UpstreamError('SCHEMA_MISSING', 'this database has no ledger, or an older one; migrate it first', {
        cause,
      });
    case '23505':
      return new ConflictError('SEQ_TAKEN', 'another writer appended this version of the span first', {
        field: 'seq',
        cause,
      });
    case '23502':
      return new InputError('FIELD_MISSING', `${error.column} may not be null`, { ...fieldOf(error.column), cause });
    case '42501':
      return new AccessError('NOT_PERMITTED', 'row level security or a missing grant refuses this', { cause });
    case '54000':
      return new InputError('VALUE_NOT_STORABLE', 'a text of this span is longer than its index can hold', { cause });
    case '57014':
      return new UpstreamError('DATABASE_TIMEOUT', 'the statement took longer than allowed', { cause });
    case '40001':
    case '40P01':
    case '55P03':
      return new ConflictError('TRY_AGAIN', 'another transaction is in the way', { cause });
  }
  if (error.code?.startsWith('22')) {
    return new InputError('VALUE_NOT_STORABLE', 'Postgres cannot store a value of this span', { cause });
  }
  if (error.code?.startsWith('42') || error.code?.startsWith('25')) {
    return new InputError('SQL_REFUSED', `Postgres refuses the statement (SQLSTATE ${error.code})`, { cause });
  }
  return new UpstreamError(
    'DATABASE_UNAVAILABLE',
    `the database did not answer as it should (${error.code ?? 'no code'})`,
    {
      cause,
    },
  );
}

function fieldOf(column: string | undefined): { field?: string } {
  return column === undefined ? {} : { field: column };
}
