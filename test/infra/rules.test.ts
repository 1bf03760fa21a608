import { beforeAll, describe, expect, it } from 'vitest';
import {
  type Declared,
  type DeclaredFunction,
  functionsOf,
  type Hcl,
  type Infrastructure,
  permissionsOf,
  placeOf,
  readInfrastructure,
  resourcesOf,
  statementsOf,
  theResource,
} from './infrastructure.ts';

/** What has to be so in `infra/`, and ways to break it that must be seen. */
interface Rule {
  sentence: string;
  /** What is not so, each by its place. */
  check: (infra: Infrastructure) => string[];
  broken: ((infra: Infrastructure) => void)[];
}

let infra: Infrastructure;
beforeAll(async () => {
  infra = await readInfrastructure();
});

const ENVS = ['envs/dev', 'envs/prod'];
const WHOLE = 'modules/loglineos';

/** Those of a list that a test does not hold for, by name. */
function failing<T>(list: Iterable<T>, name: (each: T) => string, holds: (each: T) => boolean): string[] {
  return [...list].filter((each) => !holds(each)).map(name);
}

const failingResources =
  (types: string[], holds: (body: Hcl, declared: Declared) => boolean) => (infra: Infrastructure) => {
    const found = resourcesOf(infra, ...types);
    if (found.length === 0) return [`there is no ${types.join(', ')}`];
    return failing(found, placeOf, (declared) => holds(declared.body, declared));
  };

/** What is said of a resource of which there is one. */
const failingFields =
  (folder: string, type: string, fields: Record<string, unknown>, name?: string) => (infra: Infrastructure) => {
    const body = theResource(infra, folder, type, name);
    return failing(
      Object.entries(fields),
      ([field]) => `${type}.${field}`,
      ([field, value]) =>
        value instanceof RegExp
          ? value.test(String(body[field]))
          : JSON.stringify(body[field]) === JSON.stringify(value),
    );
  };

const set = (folder: string, type: string, change: Hcl, name?: string) => (infra: Infrastructure) => {
  Object.assign(theResource(infra, folder, type, name), change);
};
const setFunction = (name: string, change: Partial<DeclaredFunction>) => (infra: Infrastructure) => {
  Object.assign(functionsOf(infra)[name] as DeclaredFunction, change);
};
const setArgument = (folder: string, module: string, name: string, value: unknown) => (infra: Infrastructure) => {
  (infra.modules[folder]?.[module] as Hcl)[name] = value;
};
const argumentsOf = ({ modules }: Infrastructure, folder: string, module: string): Hcl => modules[folder]?.[module];
const functionEntries = (infra: Infrastructure) => Object.entries(functionsOf(infra));
const statementOf = (infra: Infrastructure, sid: string): Hcl =>
  statementsOf(infra).find(({ body }) => body.sid === sid)?.body;
const gatewayOperations = ({ gateway }: Infrastructure) =>
  Object.entries<Hcl>(gateway.paths).flatMap(([path, methods]) =>
    Object.entries<Hcl>(methods).map(([method, operation]) => ({
      route: `${method.toUpperCase()} ${path}`,
      operation,
    })),
  );

/** For which AWS knows no resources, or not before they are there. */
const WITHOUT_RESOURCES = ['Trace', 'JoinNetwork', 'PutMetrics'];
/** What a browser opens by itself; see scripts/gateway.ts. */
const PUBLIC_ROUTES = ['GET /console', 'GET /console/{name}', 'GET /docs', 'GET /health', 'GET /openapi.json'];

const RULES: Rule[] = [
  // ---- who may do what
  {
    sentence: 'every function has a role of its own, which Lambda alone may take',
    check: (infra) => [
      ...failingFields('modules/function', 'aws_lambda_function', { role: '${aws_iam_role.this.arn}' })(infra),
      ...failingFields('modules/function', 'aws_iam_role', { name: /^\$\{var\.role_prefix\}-.*var\.name/ })(infra),
      ...failing(
        infra.data.filter(({ type, name }) => type === 'aws_iam_policy_document' && name.endsWith('trust')),
        placeOf,
        ({ body }) =>
          body.statement.every(
            ({ actions, principals: [{ type, identifiers }] }: Hcl) =>
              actions.join() === 'sts:AssumeRole' &&
              type === 'Service' &&
              identifiers.length === 1 &&
              /^[a-z]+\.amazonaws\.com$/.test(identifiers[0]),
          ),
      ),
    ],
    broken: [
      set('modules/function', 'aws_lambda_function', { role: '${var.role_arn}' }),
      set('modules/function', 'aws_iam_role', { name: 'loglineos' }),
      ({ data }) => {
        const trust = data.find(({ folder, name }) => folder === 'modules/function' && name === 'trust') as Declared;
        trust.body.statement[0].principals = [{ type: 'AWS', identifiers: ['*'] }];
      },
    ],
  },
  {
    sentence: 'roles name the resources that they may touch, but where AWS knows none',
    check: (infra) =>
      failing(
        statementsOf(infra),
        ({ place }) => place,
        ({ body: { sid, effect, resources } }) => {
          const all: unknown[] = [resources].flat();
          const isNamed = all.every((resource) => typeof resource === 'string' && resource !== '*');
          return isNamed || effect === 'Deny' || WITHOUT_RESOURCES.includes(sid);
        },
      ),
    broken: [
      (infra) => {
        statementOf(infra, 'WriteLog').resources = ['*'];
      },
      (infra) => {
        permissionsOf(infra).keep_connections.resources = ['*'];
      },
      (infra) => {
        statementOf(infra, 'StartShifts').resources = '*';
      },
    ],
  },
  {
    sentence: 'roles name the actions, none by a star',
    check: (infra) =>
      failing(
        statementsOf(infra),
        ({ place }) => place,
        ({ body: { actions, not_actions, not_resources } }) =>
          not_actions === undefined &&
          not_resources === undefined &&
          [actions].flat().every((action: string) => action.startsWith('${') || !action.includes('*')),
      ),
    broken: [
      (infra) => {
        statementOf(infra, 'WriteLog').actions = ['logs:*'];
      },
      (infra) => {
        permissionsOf(infra).keep_anchors.actions = ['*'];
      },
      (infra) => {
        const trace = statementOf(infra, 'Trace');
        trace.not_actions = ['iam:*'];
      },
    ],
  },
  {
    sentence: 'metrics may be put into our namespace alone',
    check: (infra) => {
      const { condition } = permissionsOf(infra).put_metrics;
      return condition?.variable === 'cloudwatch:namespace' && condition.values.join() === 'LogLineOS'
        ? []
        : ['put_metrics'];
    },
    broken: [
      (infra) => {
        delete permissionsOf(infra).put_metrics.condition;
      },
    ],
  },
  {
    sentence: 'what Lambda does to the network for a function, the function may not do itself',
    check: (infra) => {
      const { effect, actions, condition } = statementOf(infra, 'LeaveNetworkAlone') ?? {};
      const isDenied = effect === 'Deny' && actions === statementOf(infra, 'JoinNetwork').actions;
      return isDenied && condition[0].variable === 'lambda:SourceFunctionArn' ? [] : ['LeaveNetworkAlone'];
    },
    broken: [
      (infra) => {
        statementOf(infra, 'LeaveNetworkAlone').effect = 'Allow';
      },
    ],
  },
  {
    sentence: 'no policy of AWS is given to a role but the two that services ask for',
    check: (infra) => [
      ...failingResources(['aws_iam_role_policy_attachment'], ({ policy_arn }) =>
        /\/(AWSBackupServiceRolePolicyForBackup|AmazonAPIGatewayPushToCloudWatchLogs)$/.test(policy_arn),
      )(infra),
      ...failingResources(
        ['aws_iam_role'],
        (body) => !('managed_policy_arns' in body || 'inline_policy' in body),
      )(infra),
    ],
    broken: [
      set('modules/backup', 'aws_iam_role_policy_attachment', {
        policy_arn: 'arn:aws:iam::aws:policy/AdministratorAccess',
      }),
      set('modules/function', 'aws_iam_role', { managed_policy_arns: ['arn:aws:iam::aws:policy/PowerUserAccess'] }),
    ],
  },
  {
    sentence: 'the root key is for seeding, the master’s password for migration, the runtime key for those that append',
    check: (infra) => {
      const mayRead: Record<string, RegExp> = {
        root: /-seed$/,
        runtime: /-(authorizer|stage0-loader|observer|request-worker|policy-agent|api|api-stream)$/,
        app: /-db-migration$/,
        seeder: /-db-migration$/,
        auditor: /-db-migration$/,
        providers: /-(stage0-loader|api)$/,
      };
      const mayBe: Record<string, RegExp> = {
        master: /-db-migration$/,
        seeder: /-seed$/,
        auditor: /-auditor$/,
        app: /./,
      };
      return functionEntries(infra).flatMap(([name, { secrets = [], database }]) => [
        ...failing(
          secrets,
          (secret) => `${name} reads ${secret}`,
          (secret) => mayRead[secret]?.test(name) === true,
        ),
        ...(database === undefined || mayBe[database]?.test(name) ? [] : [`${name} is ${database}`]),
      ]);
    },
    broken: [
      setFunction('loglineos-api', { secrets: ['runtime', 'root'] }),
      setFunction('loglineos-auditor', { secrets: ['runtime'] }),
      setFunction('loglineos-seed', { database: 'master' }),
      setFunction('loglineos-stage0-loader', { database: 'seeder' }),
    ],
  },
  {
    sentence: 'the sandbox has no right, no variable, no secret and no network',
    check: (infra) => {
      const { is_bare, database, secrets, permissions, environment } = functionsOf(infra)['loglineos-sandbox'] ?? {};
      const policy = theResource(infra, 'modules/function', 'aws_iam_role_policy');
      const others = functionEntries(infra).filter(([name, each]) => each.is_bare && name !== 'loglineos-sandbox');
      return [
        ...(is_bare && policy.count === '${var.is_bare ? 0 : 1}' ? [] : ['its role has a policy']),
        ...failing(
          Object.entries({ database, secrets, permissions, environment }),
          ([what]) => what,
          ([, said]) => said === undefined,
        ),
        ...others.map(([name]) => `${name} is bare`),
      ];
    },
    broken: [
      setFunction('loglineos-sandbox', { is_bare: false }),
      setFunction('loglineos-sandbox', { permissions: ['put_metrics'] }),
      setFunction('loglineos-sandbox', { environment: { RUNTIME_SECRET_ARN: '${local.secret_arns.runtime}' } }),
      set('modules/function', 'aws_iam_role_policy', { count: 1 }),
    ],
  },
  {
    sentence: 'nobody may delete what the auditor saw, and nobody else may touch it',
    check: (infra) => {
      const mayTouch = Object.entries(permissionsOf(infra)).filter(([, { resources }]) =>
        /audit_table/.test(resources.join()),
      );
      return mayTouch.flatMap(([permission, { actions }]) => [
        ...actions.filter((action: string) => !/^dynamodb:(GetItem|PutItem|UpdateItem|Query)$/.test(action)),
        ...functionEntries(infra).flatMap(([name, { permissions }]) =>
          permissions?.includes(permission) && name !== 'loglineos-auditor' ? [name] : [],
        ),
      ]);
    },
    broken: [
      (infra) => {
        permissionsOf(infra).keep_anchors.actions.push('dynamodb:DeleteItem');
      },
      setFunction('loglineos-observer', { permissions: ['keep_anchors'] }),
    ],
  },
  {
    sentence: 'API Gateway may invoke a function for one stage, method and path, or as an authorizer',
    check: failingResources(['aws_lambda_permission'], ({ principal, source_arn, qualifier, action }) => {
      const isNarrow =
        /execution_arn\}\/(\$\{[\w.]*stage[\w.]*\}\/(\$\{each\.value(\.method\}\$\{each\.value\.path)?\}|OPTIONS\/\*)|authorizers\/)/.test(
          source_arn,
        );
      return (
        principal === 'apigateway.amazonaws.com' &&
        isNarrow &&
        /\.alias\b/.test(qualifier) &&
        action === 'lambda:InvokeFunction'
      );
    }),
    broken: [
      set(
        'modules/rest_api',
        'aws_lambda_permission',
        { source_arn: '${aws_api_gateway_rest_api.this.execution_arn}/*/*' },
        'route',
      ),
      set('modules/rest_api', 'aws_lambda_permission', { source_arn: undefined }, 'preflight'),
      set('modules/websocket_api', 'aws_lambda_permission', { qualifier: undefined }, 'timeline'),
      set('modules/websocket_api', 'aws_lambda_permission', { principal: '*' }, 'authorizer'),
    ],
  },

  // ---- secrets
  {
    sentence: 'no secret is written into Terraform, its state or a variable',
    check: (infra) => [
      ...infra.resources.flatMap((declared) =>
        ['password', 'password_wo', 'secret_string', 'secret_binary', 'auth_token', 'access_key', 'secret_key']
          .filter((argument) => argument in declared.body)
          .map((argument) => `${placeOf(declared)}.${argument}`),
      ),
      ...resourcesOf(infra, 'random_password', 'random_string', 'tls_private_key').map(placeOf),
      ...infra.data.filter(({ type }) => /secretsmanager_(secret_version|random_password)$/.test(type)).map(placeOf),
      ...Object.entries(infra.variables).flatMap(([folder, variables]) =>
        Object.keys(variables)
          .filter((name) => /(password|secret|token|private_key)$/.test(name))
          .map((name) => `${folder}: variable ${name}`),
      ),
      ...functionEntries(infra).flatMap(([name, { environment = {} }]) =>
        Object.keys(environment)
          .filter((variable) => /(SECRET|PASSWORD|TOKEN|_KEY)$/.test(variable) && variable !== 'OVERRIDE_PUBLIC_KEY')
          .map((variable) => `${name}: ${variable}`),
      ),
    ],
    broken: [
      set('modules/database', 'aws_db_instance', { password: '${var.master}' }),
      set('modules/secrets', 'aws_secretsmanager_secret_version', { secret_string: 'hunter2' }),
      ({ resources }) => void resources.push({ folder: 'x', type: 'random_password', name: 'x', body: {} }),
      ({ data }) => void data.push({ folder: 'x', type: 'aws_secretsmanager_secret_version', name: 'x', body: {} }),
      ({ variables }) => {
        (variables['envs/prod'] as Hcl).database_password = {};
      },
      setFunction('loglineos-api', { environment: { RUNTIME_KEY: '${var.x}' } }),
    ],
  },
  {
    sentence: 'passwords are drawn without being kept, and written once for each version',
    check: (infra) => [
      ...failingResources(
        ['aws_secretsmanager_secret_version'],
        ({ secret_string_wo, secret_string_wo_version }) =>
          /ephemeral\./.test(secret_string_wo) && secret_string_wo_version === '${var.login_password_version}',
      )(infra),
      ...(infra.ephemeral.some(({ body }) => body.password_length >= 32) ? [] : ['passwords are short']),
    ],
    broken: [
      set('modules/secrets', 'aws_secretsmanager_secret_version', { secret_string_wo: 'fixed' }),
      ({ ephemeral }) => {
        (ephemeral[0] as Declared).body.password_length = 8;
      },
    ],
  },
  {
    sentence: 'secrets have a key of ours',
    check: failingResources(
      ['aws_secretsmanager_secret'],
      ({ kms_key_id, recovery_window_in_days }) => /secrets/.test(kms_key_id) && recovery_window_in_days === 30,
    ),
    broken: [set('modules/secrets', 'aws_secretsmanager_secret', { kms_key_id: undefined }, 'providers')],
  },

  // ---- encryption
  {
    sentence: 'all that is kept is encrypted',
    check: (infra) => [
      ...failingResources(
        ['aws_dynamodb_table'],
        ({ server_side_encryption }) => server_side_encryption?.[0].enabled === true,
      )(infra),
      ...failingResources(['aws_sqs_queue'], ({ sqs_managed_sse_enabled }) => sqs_managed_sse_enabled === true)(infra),
      ...failingResources(['aws_sns_topic'], ({ kms_master_key_id }) => kms_master_key_id !== undefined)(infra),
      ...failingResources(['aws_cloudwatch_log_group'], ({ kms_key_id }) => kms_key_id !== undefined)(infra),
      ...failingResources(['aws_backup_vault'], ({ kms_key_arn }) => kms_key_arn !== undefined)(infra),
      ...failingResources(
        ['aws_s3_bucket_server_side_encryption_configuration'],
        ({ rule }) => rule[0].apply_server_side_encryption_by_default[0].sse_algorithm === 'aws:kms',
      )(infra),
      ...failingResources(['aws_kms_key'], ({ enable_key_rotation }) => enable_key_rotation === true)(infra),
    ],
    broken: [
      set('modules/tables', 'aws_dynamodb_table', { server_side_encryption: undefined }, 'audit'),
      set('modules/function', 'aws_sqs_queue', { sqs_managed_sse_enabled: false }),
      set('modules/observability', 'aws_sns_topic', { kms_master_key_id: undefined }),
      set('modules/waf', 'aws_cloudwatch_log_group', { kms_key_id: undefined }),
      set('modules/backup', 'aws_backup_vault', { kms_key_arn: undefined }, 'second_region'),
      set('modules/database', 'aws_kms_key', { enable_key_rotation: false }),
    ],
  },
  {
    sentence: 'buckets are closed to the public, take TLS alone and keep what was there',
    check: (infra) => [
      ...failingFields('bootstrap', 'aws_s3_bucket_public_access_block', {
        block_public_acls: true,
        block_public_policy: true,
        ignore_public_acls: true,
        restrict_public_buckets: true,
      })(infra),
      ...failingResources(
        ['aws_s3_bucket_versioning'],
        (body) => body.versioning_configuration[0].status === 'Enabled',
      )(infra),
      ...failing(
        infra.data.filter(({ folder, name }) => folder === 'bootstrap' && name === 'bucket'),
        placeOf,
        ({ body: { statement } }) =>
          statement[0].effect === 'Deny' && statement[0].condition[0].variable === 'aws:SecureTransport',
      ),
    ],
    broken: [
      set('bootstrap', 'aws_s3_bucket_public_access_block', { block_public_policy: false }),
      set('bootstrap', 'aws_s3_bucket_versioning', { versioning_configuration: [{ status: 'Suspended' }] }),
    ],
  },

  // ---- the database
  {
    sentence: 'the database is private, encrypted by its own key, and its master’s password is RDS’s own',
    check: failingFields('modules/database', 'aws_db_instance', {
      publicly_accessible: false,
      storage_encrypted: true,
      kms_key_id: '${aws_kms_key.database.arn}',
      manage_master_user_password: true,
      skip_final_snapshot: false,
      delete_automated_backups: false,
      copy_tags_to_snapshot: true,
      vpc_security_group_ids: ['${var.security_group_id}'],
      backup_retention_period: '${var.backup_retention_days}',
      multi_az: '${var.multi_az}',
      deletion_protection: '${var.deletion_protection}',
      database_insights_mode: '${var.database_insights_mode}',
    }),
    broken: [
      set('modules/database', 'aws_db_instance', { publicly_accessible: true }),
      set('modules/database', 'aws_db_instance', { storage_encrypted: false }),
      set('modules/database', 'aws_db_instance', { manage_master_user_password: undefined }),
      set('modules/database', 'aws_db_instance', { skip_final_snapshot: true }),
      set('modules/database', 'aws_db_instance', { backup_retention_period: 0 }),
    ],
  },
  {
    sentence: 'the database speaks TLS alone, ends what is idle, and knows the extension for vectors',
    check: (infra) => {
      const { parameter } = theResource(infra, 'modules/database', 'aws_db_parameter_group');
      const values = Object.fromEntries(parameter.map(({ name, value }: Hcl) => [name, value]));
      const proxy = theResource(infra, 'modules/database', 'aws_db_proxy');
      return [
        ...(values['rds.force_ssl'] === '1' && proxy.require_tls === true ? [] : ['TLS']),
        // Listening takes as long as Lambda gives, 15 minutes.
        ...(Number(values.idle_session_timeout) > 900_000 ? [] : ['idle_session_timeout']),
        ...(Number(values.idle_in_transaction_session_timeout) > 0 ? [] : ['idle_in_transaction_session_timeout']),
        ...(/\bvector\b/.test(values['rds.allowed_extensions']) ? [] : ['vector']),
      ];
    },
    broken: [
      (infra) => {
        theResource(infra, 'modules/database', 'aws_db_parameter_group').parameter[0].value = '0';
      },
      set('modules/database', 'aws_db_proxy', { require_tls: false }),
      set('modules/database', 'aws_db_parameter_group', { parameter: [] }),
    ],
  },
  {
    sentence: 'functions trust the authorities of RDS, from a layer of theirs',
    check: (infra) => {
      const { environment, layer_arns } = argumentsOf(infra, WHOLE, 'function');
      return /DATABASE_CA_FILE += "\/opt\/rds-ca\.pem"/.test(environment) && /rds_ca/.test(layer_arns)
        ? []
        : ['DATABASE_CA_FILE'];
    },
    broken: [setArgument(WHOLE, 'function', 'layer_arns', []), setArgument(WHOLE, 'function', 'environment', {})],
  },
  {
    sentence: 'prod has a standby, protection, 35 days, insights and the sandbox; dev has 14 days at least',
    check: (infra) => {
      const prod = argumentsOf(infra, 'envs/prod', 'loglineos');
      const wanted = {
        multi_az: true,
        deletion_protection: true,
        point_in_time_days: 35,
        enable_sandbox_function: true,
        database_insights_mode: 'advanced',
      };
      return [
        ...failing(
          Object.entries(wanted),
          ([name]) => `prod: ${name}`,
          ([name, value]) => prod[name] === value,
        ),
        ...failing(
          ENVS,
          (env) => `${env}: point_in_time_days`,
          (env) => argumentsOf(infra, env, 'loglineos').point_in_time_days >= 14,
        ),
      ];
    },
    broken: [
      setArgument('envs/prod', 'loglineos', 'multi_az', false),
      setArgument('envs/prod', 'loglineos', 'deletion_protection', false),
      setArgument('envs/prod', 'loglineos', 'enable_sandbox_function', false),
      setArgument('envs/dev', 'loglineos', 'point_in_time_days', 1),
    ],
  },

  // ---- the network
  {
    sentence: 'nothing enters the VPC from an address, and nothing leaves it but through the NAT that was asked for',
    check: (infra) => [
      ...failingResources(
        ['aws_vpc_security_group_ingress_rule'],
        (rule) => rule.referenced_security_group_id !== undefined,
      )(infra),
      ...failingResources(
        ['aws_vpc_security_group_egress_rule'],
        (rule) =>
          (rule.referenced_security_group_id ?? rule.prefix_list_id) !== undefined ||
          rule.count === '${var.enable_nat ? 1 : 0}',
      )(infra),
      ...failingResources(['aws_security_group'], (group) => !('ingress' in group || 'egress' in group))(infra),
      ...failingResources(
        ['aws_internet_gateway', 'aws_nat_gateway', 'aws_eip', 'aws_route'],
        ({ count }) => count === '${var.enable_nat ? 1 : 0}',
      )(infra),
      ...failingResources(['aws_subnet'], ({ map_public_ip_on_launch }) => map_public_ip_on_launch !== true)(infra),
      ...failing(
        ENVS,
        (env) => `${env}: enable_nat`,
        (env) => infra.variables[env]?.enable_nat.default === false,
      ),
    ],
    broken: [
      set(
        'modules/network',
        'aws_vpc_security_group_ingress_rule',
        { referenced_security_group_id: undefined, cidr_ipv4: '0.0.0.0/0' },
        'database_from_functions',
      ),
      set('modules/network', 'aws_vpc_security_group_egress_rule', { count: undefined }, 'functions_to_internet'),
      set('modules/network', 'aws_nat_gateway', { count: 1 }),
      ({ variables }) => {
        (variables['envs/dev'] as Hcl).enable_nat.default = true;
      },
    ],
  },
  {
    sentence: 'services of AWS are reached through endpoints that let pass this account and these actions alone',
    check: (infra) => {
      const { gateway_endpoints = {}, interface_endpoints = '' } = infra.locals['modules/network'] ?? {};
      return [
        ...failing(
          ['s3', 'dynamodb'],
          (service) => service,
          (service) => service in gateway_endpoints,
        ),
        ...failing(
          ['secretsmanager', 'monitoring', 'lambda'],
          (service) => service,
          (service) => new RegExp(`\\b${service} = \\{`).test(interface_endpoints),
        ),
        ...failingResources(['aws_vpc_endpoint'], ({ policy }) => /_endpoint\[each\.key\]\.json/.test(policy))(infra),
        ...failing(
          infra.data.filter(({ name }) => name.endsWith('_endpoint')),
          placeOf,
          ({ body: { statement } }) => statement[0].condition[0].variable === 'aws:PrincipalAccount',
        ),
      ];
    },
    broken: [
      (infra) => {
        delete (infra.locals['modules/network'] as Hcl).gateway_endpoints.dynamodb;
      },
      set('modules/network', 'aws_vpc_endpoint', { policy: undefined }, 'interface'),
    ],
  },
  {
    sentence: 'what runs beside the database has a login; the sockets’ functions and the sandbox stand outside',
    check: (infra) => {
      const outside = functionEntries(infra).filter(([, { database }]) => database === undefined);
      const { network } = argumentsOf(infra, WHOLE, 'function');
      return [
        ...(outside
          .map(([name]) => name)
          .sort()
          .join() === 'loglineos-sandbox,loglineos-timeline,loglineos-timeline-sender'
          ? []
          : outside.map(([name]) => `${name} is outside`)),
        ...(/database, null\) == null \? null/.test(network) ? [] : ['network']),
      ];
    },
    broken: [
      setFunction('loglineos-timeline-sender', { database: 'app' }),
      setFunction('loglineos-timeline-reader', { database: undefined as never }),
      setArgument(WHOLE, 'function', 'network', null),
    ],
  },

  // ---- functions
  {
    sentence: 'functions are of the runtime that is current, on arm64, traced, from the bucket, in versions',
    check: (infra) => [
      ...failingFields('modules/function', 'aws_lambda_function', {
        runtime: '${var.runtime}',
        architectures: ['arm64'],
        handler: 'index.handler',
        publish: true,
        s3_key: '${var.artifact_key}',
        tracing_config: [{ mode: '${var.is_bare ? "PassThrough" : "Active"}' }],
        reserved_concurrent_executions: '${var.reserved_concurrency}',
      })(infra),
      ...failing(
        ENVS,
        (env) => `${env}: runtime`,
        (env) => argumentsOf(infra, env, 'loglineos').runtime === 'nodejs24.x',
      ),
    ],
    broken: [
      set('modules/function', 'aws_lambda_function', { publish: false }),
      set('modules/function', 'aws_lambda_function', { tracing_config: [{ mode: 'PassThrough' }] }),
      setArgument('envs/dev', 'loglineos', 'runtime', 'nodejs20.x'),
    ],
  },
  {
    sentence: 'which version works is the deploy script’s to say, and everything asks for that one',
    check: (infra) => {
      const alias = theResource(infra, 'modules/function', 'aws_lambda_alias');
      const { outputs } = infra;
      return [
        ...(alias.name === '${local.alias}' && infra.locals['modules/function']?.alias === 'live' ? [] : ['alias']),
        ...(alias.lifecycle?.[0].ignore_changes?.join() === '${function_version},${description}'
          ? []
          : ['ignore_changes']),
        ...failing(
          ['invoke_arn', 'alias_arn'],
          (output) => output,
          (output) => outputs['modules/function']?.[output].value.startsWith('${aws_lambda_alias.live.'),
        ),
        ...(theResource(infra, 'modules/function', 'aws_lambda_function_event_invoke_config').qualifier ===
        '${aws_lambda_alias.live.name}'
          ? []
          : ['event invoke config']),
      ];
    },
    broken: [
      set('modules/function', 'aws_lambda_alias', { lifecycle: undefined }),
      ({ outputs }) => {
        (outputs['modules/function'] as Hcl).invoke_arn.value = '${aws_lambda_function.this.arn}';
      },
    ],
  },
  {
    sentence: 'logs are kept for as long as is said, and no longer',
    check: (infra) => [
      ...failingResources(
        ['aws_cloudwatch_log_group'],
        ({ retention_in_days }) => retention_in_days === '${var.log_retention_days}',
      )(infra),
      ...failing(
        ENVS,
        (env) => env,
        (env) => argumentsOf(infra, env, 'loglineos').log_retention_days > 0,
      ),
      ...(theResource(infra, 'modules/function', 'aws_cloudwatch_log_group').name === '/aws/lambda/${var.name}'
        ? []
        : ['the function’s']),
    ],
    broken: [
      set('modules/function', 'aws_cloudwatch_log_group', { retention_in_days: undefined }),
      set('modules/rest_api', 'aws_cloudwatch_log_group', { retention_in_days: 0 }),
      setArgument('envs/prod', 'loglineos', 'log_retention_days', 0),
    ],
  },

  // ---- schedules
  {
    sentence: 'what a schedule starts is not tried again, and its failures go to a queue',
    check: (infra) => {
      const { target, schedule_expression } = theResource(infra, 'modules/schedules', 'aws_scheduler_schedule');
      const { retry_policy, dead_letter_config, arn } = target[0];
      const invoke = theResource(infra, 'modules/function', 'aws_lambda_function_event_invoke_config');
      return [
        ...(schedule_expression === '${each.value.rate}' ? [] : ['rate']),
        ...(retry_policy?.[0].maximum_retry_attempts === 0 && invoke.maximum_retry_attempts === 0
          ? []
          : ['it is tried again']),
        ...(dead_letter_config && invoke.destination_config?.[0].on_failure ? [] : ['failures are lost']),
        ...(arn === '${each.value.alias_arn}' ? [] : ['not the alias']),
        ...functionEntries(infra).flatMap(([name, { rate }]) =>
          rate && !/^rate\((1 minute|[2-9] minutes)\)$/.test(rate) ? [name] : [],
        ),
        ...failing(
          ['observer', 'request-worker', 'policy-agent', 'timeline-sender', 'auditor'],
          (name) => `${name} is never started`,
          (name) => functionsOf(infra)[`loglineos-${name}`]?.rate !== undefined,
        ),
      ];
    },
    broken: [
      setFunction('loglineos-observer', { rate: 'rate(10 seconds)' }),
      setFunction('loglineos-auditor', { rate: undefined as never }),
      (infra) => {
        theResource(
          infra,
          'modules/schedules',
          'aws_scheduler_schedule',
        ).target[0].retry_policy[0].maximum_retry_attempts = 3;
      },
      (infra) => {
        delete theResource(infra, 'modules/schedules', 'aws_scheduler_schedule').target[0].dead_letter_config;
      },
      set('modules/function', 'aws_lambda_function_event_invoke_config', { maximum_retry_attempts: 2 }),
    ],
  },

  // ---- the REST API
  {
    sentence: 'an authorizer stands before every route but the public pages and a browser’s first question',
    check: (infra) =>
      failing(
        gatewayOperations(infra),
        ({ route }) => route,
        ({ route, operation: { security } }) => {
          if (PUBLIC_ROUTES.includes(route) || route.startsWith('OPTIONS ')) return security === undefined;
          const scheme = infra.gateway.components.securitySchemes[Object.keys(security?.[0] ?? {})[0] ?? ''];
          return scheme?.['x-amazon-apigateway-authorizer'].authorizerUri === '${authorizer_uri}';
        },
      ),
    broken: [
      ({ gateway }) => {
        delete gateway.paths['/boot'].post.security;
      },
      ({ gateway }) => {
        gateway.paths['/api/spans'].get.security = [];
      },
      ({ gateway }) => {
        gateway.paths['/admin'] = { get: {} };
      },
      ({ gateway }) => {
        delete gateway.components.securitySchemes.bearer;
      },
    ],
  },
  {
    sentence: 'a credential that is kept is one that was shown, and a ticket’s is not kept',
    check: ({ gateway }) => {
      const { bearer, bearerOrTicket } = gateway.components.securitySchemes;
      const authorizer = 'x-amazon-apigateway-authorizer';
      return [
        ...(bearer[authorizer].identitySource === 'method.request.header.Authorization' ? [] : ['identity source']),
        ...(bearerOrTicket[authorizer].authorizerResultTtlInSeconds === 0 ? [] : ['ticket']),
        ...(Object.keys(gateway.paths['/api/timeline/stream'].get.security[0])[0] === 'bearerOrTicket'
          ? []
          : ['stream']),
      ];
    },
    broken: [
      ({ gateway }) => {
        gateway.components.securitySchemes.bearerOrTicket[
          'x-amazon-apigateway-authorizer'
        ].authorizerResultTtlInSeconds = 300;
      },
    ],
  },
  {
    sentence: 'every route leads to a function by its invoke ARN; the stream answers bit by bit',
    check: (infra) => [
      ...failing(
        gatewayOperations(infra),
        ({ route }) => route,
        ({ route, operation }) => {
          const { type, httpMethod, uri, responseTransferMode } = operation['x-amazon-apigateway-integration'] ?? {};
          const isStream = route === 'GET /api/timeline/stream';
          return (
            type === 'aws_proxy' &&
            httpMethod === 'POST' &&
            uri === (isStream ? '${stream_uri}' : '${api_uri}') &&
            responseTransferMode === (isStream ? 'STREAM' : undefined)
          );
        },
      ),
      ...(/api_uri += var\.api\.invoke_arn/.test(infra.locals['modules/rest_api']?.body) ? [] : ['api_uri']),
      ...(/response-streaming-invocations/.test(infra.locals['modules/rest_api']?.stream_uri) ? [] : ['stream_uri']),
      ...(theResource(infra, 'modules/websocket_api', 'aws_apigatewayv2_integration').integration_uri ===
      '${var.timeline.invoke_arn}'
        ? []
        : ['integration_uri']),
      ...(theResource(infra, 'modules/websocket_api', 'aws_apigatewayv2_authorizer').authorizer_uri ===
      '${var.authorizer.invoke_arn}'
        ? []
        : ['authorizer_uri']),
    ],
    broken: [
      ({ gateway }) => {
        gateway.paths['/boot'].post['x-amazon-apigateway-integration'].uri = 'arn:aws:lambda:eu-central-1:1:function:x';
      },
      ({ gateway }) => {
        delete gateway.paths['/api/timeline/stream'].get['x-amazon-apigateway-integration'].responseTransferMode;
      },
      set('modules/websocket_api', 'aws_apigatewayv2_integration', { integration_uri: '${var.timeline.arn}' }),
    ],
  },
  {
    sentence: 'bodies are validated by a model before they reach a function',
    check: (infra) =>
      failing(
        gatewayOperations(infra).filter(({ route }) => route.startsWith('POST ')),
        ({ route }) => route,
        ({ operation }) => {
          const validator = operation['x-amazon-apigateway-request-validator'];
          const { validateRequestBody, validateRequestParameters } =
            infra.gateway['x-amazon-apigateway-request-validators'][validator] ?? {};
          const model = operation.requestBody?.content['application/json'].schema.$ref?.replace(
            '#/components/schemas/',
            '',
          );
          const isKnown = operation.requestBody === undefined || model in infra.gateway.components.schemas;
          return validateRequestBody === true && validateRequestParameters === true && isKnown;
        },
      ),
    broken: [
      ({ gateway }) => {
        delete gateway.paths['/api/execute'].post['x-amazon-apigateway-request-validator'];
      },
      ({ gateway }) => {
        delete gateway.components.schemas.Boot;
      },
    ],
  },
  {
    sentence: 'the stage is deployed anew whenever anything of the definition changes',
    check: (infra) => [
      ...failingFields('modules/rest_api', 'aws_api_gateway_deployment', {
        triggers: { definition: '${sha256(local.body)}' },
        lifecycle: [{ create_before_destroy: true }],
      })(infra),
      ...failingFields('modules/rest_api', 'aws_api_gateway_rest_api', {
        body: '${local.body}',
      })(infra),
      ...failing(
        resourcesOf(
          infra,
          'aws_apigatewayv2_route',
          'aws_apigatewayv2_integration',
          'aws_apigatewayv2_authorizer',
          'aws_apigatewayv2_route_response',
        ),
        placeOf,
        ({ type, name }) =>
          theResource(infra, 'modules/websocket_api', 'aws_apigatewayv2_deployment').triggers.definition.includes(
            `${type}.${name}`,
          ),
      ),
    ],
    broken: [
      set('modules/rest_api', 'aws_api_gateway_deployment', { triggers: undefined }),
      set('modules/websocket_api', 'aws_apigatewayv2_deployment', { triggers: { definition: '${sha256("")}' } }),
    ],
  },
  {
    sentence: 'callers are throttled, in the settings of the methods and not in the stage',
    check: (infra) => {
      const { method_path, settings } = theResource(infra, 'modules/rest_api', 'aws_api_gateway_method_settings');
      const { throttling_rate_limit, throttling_burst_limit, data_trace_enabled } = settings[0];
      const [sockets] = theResource(infra, 'modules/websocket_api', 'aws_apigatewayv2_stage')
        .default_route_settings ?? [{}];
      return [
        ...(method_path === '*/*' && throttling_rate_limit && throttling_burst_limit ? [] : ['REST']),
        ...(sockets.throttling_rate_limit && sockets.throttling_burst_limit ? [] : ['sockets']),
        ...(data_trace_enabled === false && sockets.data_trace_enabled === false ? [] : ['bodies are logged']),
        ...('throttle_settings' in theResource(infra, 'modules/rest_api', 'aws_api_gateway_stage')
          ? ['in the stage']
          : []),
      ];
    },
    broken: [
      set('modules/rest_api', 'aws_api_gateway_method_settings', { settings: [{ data_trace_enabled: false }] }),
      set('modules/rest_api', 'aws_api_gateway_stage', { throttle_settings: [{}] }),
      set('modules/websocket_api', 'aws_apigatewayv2_stage', {
        default_route_settings: [{ data_trace_enabled: true }],
      }),
    ],
  },
  {
    sentence: 'access logs are JSON, and hold neither a credential nor a query string',
    check: failingResources(['aws_api_gateway_stage', 'aws_apigatewayv2_stage'], ({ access_log_settings }) => {
      const format = access_log_settings?.[0].format ?? '';
      const fields = [...format.matchAll(/\$context\.([\w.]+)/g)].map(([, field]) => field);
      return (
        format.startsWith('${jsonencode(') &&
        fields.length > 5 &&
        !/[Hh]eader|[Aa]uthorization|queryString|querystring|\$input|requestOverride|apiKey|\.token/.test(format)
      );
    }),
    broken: [
      set('modules/rest_api', 'aws_api_gateway_stage', { access_log_settings: undefined }),
      (infra) => {
        const stage = theResource(infra, 'modules/rest_api', 'aws_api_gateway_stage');
        stage.access_log_settings[0].format = stage.access_log_settings[0].format.replace(
          '$context.path',
          '$context.requestOverride.path',
        );
      },
      (infra) => {
        const stage = theResource(infra, 'modules/websocket_api', 'aws_apigatewayv2_stage');
        stage.access_log_settings[0].format += '$context.authorizer.header';
      },
    ],
  },
  {
    sentence:
      'a firewall with AWS’s rules and one of ours for the rate stands before the REST stage, and logs no credential',
    check: (infra) => {
      const { rule, visibility_config } = theResource(infra, 'modules/waf', 'aws_wafv2_web_acl');
      const groups = rule.flatMap(({ statement }: Hcl) => statement[0].managed_rule_group_statement?.[0].name ?? []);
      const { redacted_fields } = theResource(infra, 'modules/waf', 'aws_wafv2_web_acl_logging_configuration');
      return [
        ...failing(
          ['AWSManagedRulesCommonRuleSet', 'AWSManagedRulesKnownBadInputsRuleSet'],
          (group) => group,
          (group) => groups.includes(group),
        ),
        ...(rule.some(({ statement, action }: Hcl) => statement[0].rate_based_statement && action?.[0].block)
          ? []
          : ['rate']),
        ...(theResource(infra, 'modules/waf', 'aws_wafv2_web_acl_association').resource_arn === '${var.stage_arn}' &&
        argumentsOf(infra, WHOLE, 'waf').stage_arn === '${module.rest_api.stage_arn}'
          ? []
          : ['it stands nowhere']),
        ...(redacted_fields?.some(({ single_header }: Hcl) => single_header?.[0].name === 'authorization')
          ? []
          : ['Authorization']),
        ...(redacted_fields?.some(({ query_string }: Hcl) => query_string) ? [] : ['query string']),
        // AWS keeps sampled requests with their headers.
        ...[...rule, { visibility_config }].flatMap(
          ({ name = 'all', visibility_config: [{ sampled_requests_enabled }] }: Hcl) =>
            sampled_requests_enabled === false ? [] : [`${name} is sampled`],
        ),
      ];
    },
    broken: [
      ({ resources }) => {
        resources.splice(
          resources.findIndex(({ type }) => type === 'aws_wafv2_web_acl'),
          1,
          {
            folder: 'modules/waf',
            type: 'aws_wafv2_web_acl',
            name: 'this',
            body: { rule: [], visibility_config: [{}] },
          },
        );
      },
      set('modules/waf', 'aws_wafv2_web_acl_association', { resource_arn: '${var.other}' }),
      set('modules/waf', 'aws_wafv2_web_acl_logging_configuration', { redacted_fields: [] }),
    ],
  },

  // ---- the WebSocket API
  {
    sentence: 'nobody connects a socket whom the authorizer does not know, by ticket or header',
    check: (infra) => [
      ...failingFields(
        'modules/websocket_api',
        'aws_apigatewayv2_route',
        {
          route_key: '$connect',
          authorization_type: 'CUSTOM',
          authorizer_id: '${aws_apigatewayv2_authorizer.this.id}',
        },
        'connect',
      )(infra),
      ...failing(
        ['connect', 'disconnect', 'default'],
        (name) => name,
        (name) => theResource(infra, 'modules/websocket_api', 'aws_apigatewayv2_route', name).route_key === `$${name}`,
      ),
      ...('identity_sources' in theResource(infra, 'modules/websocket_api', 'aws_apigatewayv2_authorizer')
        ? ['all sources must be there']
        : []),
      ...failingResources(
        ['aws_apigatewayv2_route_response'],
        (body) => body.route_id === '${aws_apigatewayv2_route.default.id}',
      )(infra),
    ],
    broken: [
      set('modules/websocket_api', 'aws_apigatewayv2_route', { authorization_type: 'NONE' }, 'connect'),
      set('modules/websocket_api', 'aws_apigatewayv2_authorizer', {
        identity_sources: ['route.request.querystring.ticket', 'route.request.header.Authorization'],
      }),
    ],
  },

  // ---- backups
  {
    sentence: 'backups are in two regions, by keys of their own, in vaults that are locked',
    check: (infra) => [
      ...failingResources(
        ['aws_db_instance_automated_backups_replication'],
        ({ region, kms_key_id }) =>
          region === '${var.second_region}' && kms_key_id === '${aws_kms_key.second_region.arn}',
      )(infra),
      ...failing(
        ['this', 'second_region'],
        (vault) => `vault ${vault}`,
        (vault) =>
          resourcesOf(infra, 'aws_backup_vault_lock_configuration').some(
            ({ body }) =>
              body.backup_vault_name === `\${aws_backup_vault.${vault}.name}` && body.min_retention_days !== undefined,
          ),
      ),
      ...failing(
        theResource(infra, 'modules/backup', 'aws_backup_plan').rule,
        ({ rule_name }: Hcl) => rule_name,
        (rule: Hcl) => rule.copy_action?.[0].destination_vault_arn === '${aws_backup_vault.second_region.arn}',
      ),
      ...failing(
        ['var.database_arn', 'var.audit_table_arn'],
        (arn) => arn,
        (arn) => theResource(infra, 'modules/backup', 'aws_backup_selection').resources.includes(`\${${arn}}`),
      ),
    ],
    broken: [
      set('modules/backup', 'aws_db_instance_automated_backups_replication', { kms_key_id: undefined }),
      ({ resources }) => {
        resources.splice(
          resources.findIndex(({ type, name }) => type === 'aws_backup_vault_lock_configuration' && name === 'this'),
          1,
        );
      },
      (infra) => {
        delete theResource(infra, 'modules/backup', 'aws_backup_plan').rule[0].copy_action;
      },
      set('modules/backup', 'aws_backup_selection', { resources: ['${var.database_arn}'] }),
    ],
  },
  {
    sentence: 'what cannot be made again is not destroyed by mistake',
    check: (infra) => {
      const kept = [
        ...resourcesOf(infra, 'aws_kms_key').filter(({ name }) => name !== 'operations'),
        ...resourcesOf(infra, 'aws_s3_bucket'),
        ...resourcesOf(infra, 'aws_dynamodb_table').filter(({ name }) => name === 'audit'),
        ...resourcesOf(infra, 'aws_secretsmanager_secret').filter(({ folder }) => folder === 'bootstrap'),
      ];
      const audit = theResource(infra, 'modules/tables', 'aws_dynamodb_table', 'audit');
      return [
        ...failing(kept, placeOf, ({ body }) => body.lifecycle?.[0].prevent_destroy === true),
        ...(audit.deletion_protection_enabled && audit.point_in_time_recovery?.[0].enabled
          ? []
          : ['the auditor’s table']),
      ];
    },
    broken: [
      set('modules/database', 'aws_kms_key', { lifecycle: undefined }),
      set('modules/tables', 'aws_dynamodb_table', { point_in_time_recovery: undefined }, 'audit'),
      set('bootstrap', 'aws_secretsmanager_secret', { lifecycle: undefined }),
    ],
  },
  {
    sentence: 'connections that were lost end by themselves',
    check: (infra) => {
      const { hash_key, ttl } = theResource(infra, 'modules/tables', 'aws_dynamodb_table', 'connections');
      return hash_key === 'connection_id' && ttl?.[0].attribute_name === 'ends_at' && ttl[0].enabled ? [] : ['ttl'];
    },
    broken: [set('modules/tables', 'aws_dynamodb_table', { ttl: undefined }, 'connections')],
  },

  // ---- alarms
  {
    sentence: 'somebody is told of what fails, is slow, is full, is stuck, or is silent',
    check: (infra) => {
      const { alarms = {} } = infra.locals['modules/observability'] ?? {};
      const own = resourcesOf(infra, 'aws_cloudwatch_metric_alarm');
      const wanted = [
        'AWS/ApiGateway 5XXError',
        'LogLineOS RequestDuration',
        'AWS/RDS CPUUtilization',
        'AWS/RDS FreeStorageSpace',
        'AWS/RDS DatabaseConnections',
        'AWS/Backup NumberOfBackupJobsCompleted',
        'AWS/Backup NumberOfBackupJobsFailed',
        'LogLineOS QueueOldestAge',
        'LogLineOS PolicyLag',
        'LogLineOS AuditProblems',
        'LogLineOS AuditRuns',
        'LogLineOS TickHeartbeat',
        'AWS/Lambda Errors',
        'AWS/Lambda Throttles',
        'AWS/Lambda Duration',
        'AWS/SQS ApproximateNumberOfMessagesVisible',
      ];
      const named = (namespace: string) => namespace.replace('${local.namespace}', 'LogLineOS');
      const there = [
        ...Object.values<Hcl>(alarms).map(({ namespace, metric }) => `${named(namespace)} ${metric}`),
        ...own.map(({ body }) => `${named(String(body.namespace))} ${body.metric_name}`),
      ];
      return [
        ...failing(
          wanted,
          (metric) => metric,
          (metric) => there.includes(metric),
        ),
        ...failing(
          own,
          placeOf,
          ({ body }) =>
            body.alarm_actions?.[0] === '${aws_sns_topic.alarms.arn}' && body.alarm_description !== undefined,
        ),
        // Who is silent is not well.
        ...failing(
          ['audit-heartbeat', 'sender-heartbeat', 'backup-lag'],
          (name) => name,
          (name) => alarms[name]?.missing === 'breaching',
        ),
        ...(theResource(infra, 'modules/observability', 'aws_cloudwatch_metric_alarm', 'heartbeat')
          .treat_missing_data === 'breaching'
          ? []
          : ['heartbeat']),
        ...(alarms['audit-problems']?.threshold === 0 ? [] : ['the first bad row']),
        ...(/timeout_s \* 800/.test(infra.locals['modules/observability']?.duration_limits_ms) ? [] : ['duration']),
      ];
    },
    broken: [
      (infra) => {
        delete (infra.locals['modules/observability'] as Hcl).alarms['audit-problems'];
      },
      set('modules/observability', 'aws_cloudwatch_metric_alarm', { treat_missing_data: 'notBreaching' }, 'heartbeat'),
      set('modules/observability', 'aws_cloudwatch_metric_alarm', { alarm_actions: [] }, 'errors'),
      ({ resources }) => {
        resources.splice(
          resources.findIndex(({ type, name }) => type === 'aws_cloudwatch_metric_alarm' && name === 'dead_letters'),
          1,
        );
      },
      (infra) => {
        (infra.locals['modules/observability'] as Hcl).alarms['audit-heartbeat'].missing = 'notBreaching';
      },
    ],
  },
  {
    sentence: 'the dashboard answers what an operator asks',
    check: (infra) => {
      const questions = (infra.locals['modules/observability']?.questions ?? []).map(({ question }: Hcl) => question);
      return failing(
        ['Is it up?', 'Is it slow?', 'Is the queue growing?', 'Is a policy stuck?', 'Does the ledger verify?'],
        (question) => question,
        (question) => questions.includes(question),
      );
    },
    broken: [
      (infra) => {
        (infra.locals['modules/observability'] as Hcl).questions.pop();
      },
    ],
  },

  // ---- Terraform itself
  {
    sentence: 'versions are pinned, the state is encrypted and locked, and everything says whose it is',
    check: (infra) => [
      ...failing(
        Object.entries(infra.terraform),
        ([folder]) => `${folder}: versions`,
        ([, { required_version, required_providers }]) =>
          required_version === '>= 1.11' && required_providers[0].aws.version === '~> 6.25',
      ),
      ...failing(
        ENVS,
        (env) => `${env}: state`,
        (env) => {
          const [state] = infra.terraform[env].backend?.s3 ?? [{}];
          return state.use_lockfile === true && state.encrypt === true && !('dynamodb_table' in state);
        },
      ),
      ...failing(
        [...ENVS, 'bootstrap'],
        (folder) => `${folder}: tags`,
        (folder) =>
          ['Project', 'Environment', 'ManagedBy'].every(
            (tag) => tag in (infra.providers[folder].default_tags?.[0].tags ?? {}),
          ),
      ),
    ],
    broken: [
      ({ terraform }) => {
        terraform['envs/prod'].backend.s3[0].use_lockfile = false;
      },
      ({ terraform }) => {
        terraform['modules/waf'].required_version = '>= 1.5';
      },
      ({ providers }) => {
        delete providers['envs/dev'].default_tags;
      },
    ],
  },
  {
    sentence: 'environments differ in values alone',
    check: (infra) => {
      const [dev, prod] = ENVS.map((env) => ({
        arguments: Object.keys(argumentsOf(infra, env, 'loglineos')).sort(),
        modules: Object.keys(infra.modules[env] ?? {}),
        variables: infra.variables[env],
        outputs: infra.outputs[env],
        resources: infra.resources.filter(({ folder }) => folder === env).map(placeOf),
      }));
      return JSON.stringify(dev) === JSON.stringify(prod) && prod?.resources.length === 0 ? [] : ['they differ'];
    },
    broken: [
      setArgument('envs/dev', 'loglineos', 'extra', true),
      ({ variables }) => {
        (variables['envs/dev'] as Hcl).jwt.default = {};
      },
    ],
  },
];

describe.each(RULES)('$sentence', ({ check, broken }) => {
  it('holds', () => {
    expect(check(infra)).toEqual([]);
  });

  it.each(broken.map((change, i) => [i + 1, change] as const))('is seen when it does not, %i', (_n, change) => {
    const other = structuredClone(infra);
    change(other);
    expect(check(other)).not.toEqual([]);
  });
});
