import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { S3, S3ServiceException as ServiceException } from '@aws-sdk/client-s3';
import { InputError, UpstreamError } from '../../src/errors.ts';
import { buildAll, DIST, FUNCTIONS } from '../build.ts';
import type { Steps } from './steps.ts';

/** A function's zip, as it is to run. */
export interface Artifact {
  /** The function's name. */
  name: string;
  zip: Uint8Array;
  /** Of the zip: in hex, as its key in the bucket says it, and in base64, as AWS says it. */
  sha256Hex: string;
  sha256Base64: string;
}

/**
 * The zips of all functions: built now, or those that an earlier build left in a folder.
 *
 * @throws {InputError} `ZIP_MISSING`
 */
export async function collectArtifacts(folder: string | undefined): Promise<Artifact[]> {
  if (folder === undefined) await buildAll();
  return Promise.all(
    FUNCTIONS.map(async ({ name }) => {
      const path = join(folder ?? DIST, `${name}.zip`);
      const zip = await readFile(path).catch((cause) => {
        throw new InputError('ZIP_MISSING', `${path} cannot be read; npm run build makes it`, { cause });
      });
      const digest = createHash('sha256').update(zip).digest();
      return { name, zip, sha256Hex: digest.toString('hex'), sha256Base64: digest.toString('base64') };
    }),
  );
}

/** Where a zip is in the bucket: its own bytes say it, so what is there never changes. */
export function artifactKey({ name, sha256Hex }: Artifact): string {
  return `${name}/${sha256Hex}.zip`;
}

/**
 * Put the zips that are not there yet into the bucket.
 *
 * @throws {UpstreamError} `BUCKET_REFUSED`
 */
export async function uploadArtifacts(artifacts: Artifact[], bucket: string, steps: Steps): Promise<void> {
  // Imported here: it takes longer than the rest, and --functions-only does without.
  const sdk = await import('@aws-sdk/client-s3');
  const s3 = new sdk.S3({ followRegionRedirects: true });
  const isThere = await Promise.all(artifacts.map((artifact) => hasObject(s3, bucket, artifactKey(artifact))));
  const missing = artifacts.filter((_, i) => !isThere[i]);
  await Promise.all(
    missing.map((artifact) =>
      steps.change(`upload s3://${bucket}/${artifactKey(artifact)} (${kib(artifact)})`, () =>
        // S3 checks the digest; a wrong byte is refused.
        s3.putObject({
          Bucket: bucket,
          Key: artifactKey(artifact),
          Body: artifact.zip,
          ContentType: 'application/zip',
          ChecksumSHA256: artifact.sha256Base64,
        }),
      ),
    ),
  );
  const count = artifacts.length - missing.length;
  if (count > 0) steps.say(`${count} of ${artifacts.length} zips are in s3://${bucket} already`);
}

async function hasObject(s3: S3, bucket: string, key: string): Promise<boolean> {
  try {
    await s3.headObject({ Bucket: bucket, Key: key });
    return true;
  } catch (error) {
    const { name, $metadata } = error as ServiceException;
    if (name === 'NotFound') return false;
    if ($metadata?.httpStatusCode === undefined) throw error;
    // The answer to a HEAD has no text.
    const message = `s3://${bucket} answered ${$metadata.httpStatusCode}: look at its name, the account and your rights`;
    throw new UpstreamError('BUCKET_REFUSED', message, { cause: error });
  }
}

export function kib({ zip }: Artifact): string {
  return `${Math.ceil(zip.length / 1024)} KiB`;
}
