// An OpenID provider for the tests: node provider.mjs PORT REDIRECT_URI...
// Its keys are new with every start, so starting it again is a rotation. Says "ready" when it listens.
import { generateKeyPairSync } from 'node:crypto';
import process from 'node:process';
import Provider from 'oidc-provider';

const [port, ...redirectUris] = process.argv.slice(2);
const stamp = Date.now().toString(36);
const jwk = (type, options, alg) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
  use: 'sig', alg, kid: `${alg}-${stamp}`,
});

const machine = (id, extra = {}) => ({
  client_id: id, client_secret: `secret of ${id}`, redirect_uris: [], response_types: [],
  grant_types: ['client_credentials'], ...extra,
});

const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys: [jwk('rsa', { modulusLength: 2048 }, 'RS256'), jwk('ec', { namedCurve: 'P-256' }, 'ES256')] },
  cookies: { keys: ['for tests only'] },
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'] },
  clients: [
    { client_id: 'oqto', redirect_uris: redirectUris, token_endpoint_auth_method: 'none' },
    machine('builder'), machine('elsewhere'),
  ],
  clientBasedCORS: () => false,
  pkce: { required: () => true },
  scopes: ['openid', 'profile', 'email', 'use'],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource, client) => ({
        scope: 'use',
        audience: client.clientId === 'elsewhere' ? 'another-app' : 'oqto',
        accessTokenFormat: 'jwt',
        accessTokenTTL: 3600,
        jwt: { sign: { alg: resource.endsWith('es256') ? 'ES256' : 'RS256' } },
      }),
    },
  },
  // Whoever says to be somebody is: the person's name is the subject, and everybody has the same address.
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({
      sub: id, name: `Person ${id}`, preferred_username: id, email: 'dev@example.com', email_verified: true,
    }),
  }),
});
provider.on('server_error', (ctx, error) => process.stderr.write(`${error.stack}\n`));
provider.listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'));
