import { Client } from '../client/index.ts';
import { InputError } from '../errors.ts';
import { homeFolder, readSecrets } from '../local/home.ts';

export const DEFAULT_URL = 'http://127.0.0.1:8787';

/** What every command that talks to the system may be told. */
export interface GlobalOptions {
  url?: string;
  token?: string;
  json?: boolean;
}

export interface Session {
  client: Client;
  /** For programs: JSON instead of text. */
  isJson: boolean;
}

export async function openSession(options: GlobalOptions, env: NodeJS.ProcessEnv = process.env): Promise<Session> {
  const url = options.url ?? (env.LOGLINEOS_URL || DEFAULT_URL);
  const token = options.token ?? (env.LOGLINEOS_TOKEN || (await localToken(url, env)));
  return { client: new Client({ url, token }), isJson: options.json === true };
}

/** The token of the local folder. It is the key to everything there, so it is said to this machine alone. */
async function localToken(url: string, env: NodeJS.ProcessEnv): Promise<string> {
  const { hostname } = URL.parse(url) ?? { hostname: '' };
  const home = homeFolder(env);
  if (!['127.0.0.1', 'localhost', '[::1]'].includes(hostname)) {
    throw new InputError('TOKEN_MISSING', `${url} is another machine: say its token with LOGLINEOS_TOKEN or --token`);
  }
  const secrets = await readSecrets(home);
  if (secrets !== null) return secrets.token;
  throw new InputError(
    'TOKEN_MISSING',
    `there is no token: ${home} is no folder of a local system. Start one with npm start, or set LOGLINEOS_HOME, ` +
      'LOGLINEOS_TOKEN or --token',
  );
}
