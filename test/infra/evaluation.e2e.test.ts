import { beforeAll, describe, expect, it } from 'vitest';
import { type Evaluated, evaluate, HAS_TERRAFORM } from './evaluation.ts';
import { functionsOf, type Hcl, readInfrastructure } from './infrastructure.ts';

const KEY = 'ab'.repeat(32);

let names: string[];
let dev: Evaluated[];
let prod: Evaluated[];

describe.skipIf(!HAS_TERRAFORM)('what Terraform makes of it (skipped where there is no terraform)', () => {
  beforeAll(async () => {
    names = Object.keys(functionsOf(await readInfrastructure()));
    const variables = {
      region: 'eu-central-1',
      second_region: 'eu-west-1',
      artifact_bucket: 'zips',
      artifact_keys: Object.fromEntries(names.map((name) => [name, `${name}/hash.zip`])),
      trusted_root_keys: [`${KEY}@41`, KEY.replaceAll('a', 'c')],
      trusted_runtime_keys: [KEY],
      alarm_emails: ['ops@example.com'],
      override_public_key: KEY,
    };
    const jwt = { issuer: 'https://login.example/', audience: 'loglineos' };
    [prod, dev] = await Promise.all([
      evaluate('envs/prod', { ...variables, jwt, enable_nat: true, enable_providers: true }),
      evaluate('envs/dev', variables),
    ]);
  }, 120_000);

  const of = (env: Evaluated[], type: string, name?: string): Hcl[] =>
    env.filter((each) => each.type === type && (name === undefined || each.name === name)).map(({ values }) => values);
  const functionOf = (env: Evaluated[], name: string): Hcl =>
    of(env, 'aws_lambda_function').find(({ function_name }) => function_name === name);
  const policyOf = (env: Evaluated[], name: string): Hcl[] => {
    const found = env.find(
      ({ type, name: label, address }) =>
        type === 'data.aws_iam_policy_document' && label === 'this' && address.includes(`["${name}"]`),
    );
    return JSON.parse(found?.values.json).statement;
  };

  it('has no cycle, no wrong type and no loop without end: each function is there, once', () => {
    for (const env of [dev, prod]) {
      expect(
        of(env, 'aws_lambda_function')
          .map(({ function_name }) => function_name)
          .sort(),
      ).toEqual(names.toSorted());
    }
  });

  it('tells a function what it needs, and not what this environment does not have', () => {
    expect(functionOf(dev, 'loglineos-stage0-loader').environment[0].variables).toEqual({
      DATABASE_HOST: 'aws_db_instance.this.address',
      DATABASE_NAME: 'loglineos',
      DATABASE_USER: 'loglineos_app',
      DATABASE_SECRET_ARN: 'aws_secretsmanager_secret.login.arn',
      DATABASE_CA_FILE: '/opt/rds-ca.pem',
      RUNTIME_SECRET_ARN: 'data.aws_secretsmanager_secret.keys.arn',
      TRUSTED_ROOT_KEYS: `${KEY}@41,${KEY.replaceAll('a', 'c')}`,
      TRUSTED_RUNTIME_KEYS: KEY,
      ENVIRONMENT: 'dev',
    });
    expect(functionOf(prod, 'loglineos-api').environment[0].variables).toMatchObject({
      SANDBOX_FUNCTION: 'arn:aws:lambda:eu-central-1:123456789012:function:loglineos-sandbox:live',
      PROVIDER_SECRET_ARN: 'aws_secretsmanager_secret.providers.arn',
      LOGLINEOS_JWT_ISSUER: 'https://login.example/',
    });
    expect(functionOf(prod, 'loglineos-timeline-sender').environment[0].variables).toEqual({
      CONNECTIONS_TABLE: 'loglineos-prod-connections',
      READER_FUNCTION: 'arn:aws:lambda:eu-central-1:123456789012:function:loglineos-timeline-reader:live',
      SOCKETS_ENDPOINT: 'https://sockets.execute-api.eu-central-1.amazonaws.com/prod',
    });
  });

  it('gives a role what its function may do: the sandbox, nothing', () => {
    const sids = (env: Evaluated[], name: string) =>
      policyOf(env, name)
        .map(({ sid }) => sid)
        .sort();
    expect(sids(dev, 'loglineos-timeline')).toEqual(['KeepConnections', 'Trace', 'WriteLog']);
    const ofAuditor = [
      'DecryptSecrets',
      'JoinNetwork',
      'KeepAnchors',
      'LeaveNetworkAlone',
      'PutMetrics',
      'ReadSecrets',
      'ReportFailures',
      'Trace',
      'WriteLog',
    ];
    expect(sids(dev, 'loglineos-auditor')).toEqual(ofAuditor);
    expect(sids(dev, 'loglineos-api')).not.toContain('InvokeSandbox');
    expect(sids(prod, 'loglineos-api')).toContain('InvokeSandbox');
    expect(policyOf(prod, 'loglineos-api').find(({ sid }) => sid === 'ReadSecrets').resources).toHaveLength(3);
    for (const env of [dev, prod]) {
      const policies = env.filter(({ type }) => type === 'aws_iam_role_policy').map(({ address }) => address);
      expect(policies.filter((address) => address.startsWith('function['))).toHaveLength(names.length - 1);
      expect(policies.filter((address) => address.includes('sandbox'))).toEqual([]);
      const sandbox = functionOf(env, 'loglineos-sandbox');
      expect([sandbox.environment, sandbox.vpc_config, sandbox.layers]).toEqual([[], [], []]);
    }
  });

  it('gives API Gateway a definition without places to fill in, and the stream’s own way to invoke', () => {
    const [{ body }] = of(prod, 'aws_api_gateway_rest_api') as [Hcl];
    expect(body).not.toContain('${');
    const integration = JSON.parse(body).paths['/api/timeline/stream'].get['x-amazon-apigateway-integration'];
    expect(integration.uri).toBe(
      'arn:aws:apigateway:eu-central-1:lambda:path/2021-11-15/functions/ALIAS/response-streaming-invocations',
    );
    const routes = of(prod, 'aws_lambda_permission', 'route');
    expect(routes.filter(({ function_name }) => function_name === 'loglineos-api-stream')).toHaveLength(1);
    expect(routes.map(({ source_arn }) => source_arn)).toContain(
      'aws_api_gateway_rest_api.this.execution_arn/prod/GET/api/spans/*/versions',
    );
  });

  it('has an alarm that means something for each function, and none that is always on', () => {
    const limits = Object.fromEntries(
      of(prod, 'aws_cloudwatch_metric_alarm', 'duration').map(({ dimensions, threshold }) => [
        dimensions.FunctionName,
        threshold,
      ]),
    );
    expect(Object.keys(limits).sort()).toEqual(names.toSorted());
    for (const name of names) {
      expect(limits[name], name).toBeLessThan(functionOf(prod, name).timeout * 1000);
    }
    expect(limits['loglineos-api']).toBe(72_000);
    expect(limits['loglineos-observer']).toBe(59_000);
    for (const { period } of of(prod, 'aws_cloudwatch_metric_alarm'))
      expect([60, 300, 600, 900, 3600, 86_400]).toContain(period);
    const [{ dashboard_body }] = of(prod, 'aws_cloudwatch_dashboard') as [Hcl];
    expect(JSON.parse(dashboard_body).widgets).toHaveLength(5 * 4);
  });

  it('has a NAT, a standby and locked copies only where they were asked for', () => {
    expect([of(dev, 'aws_nat_gateway').length, of(prod, 'aws_nat_gateway').length]).toEqual([0, 1]);
    expect([of(dev, 'aws_db_instance')[0].multi_az, of(prod, 'aws_db_instance')[0].multi_az]).toEqual([false, true]);
    expect(of(prod, 'aws_vpc_endpoint', 'interface')).toHaveLength(3);
    expect(of(dev, 'aws_vpc_endpoint', 'interface').map(({ subnet_ids }) => subnet_ids.length)).toEqual([1, 1]);
    expect(of(dev, 'aws_backup_vault_lock_configuration')).toHaveLength(2);
  });
});
