// A real OAuth issuer (npm `oidc-provider`) and a resource that honours its tokens, in one process,
// so that the tests are judged by a server that nobody wrote for them.
//
//   node server.mjs        prints {"url":"http://127.0.0.1:PORT"} and serves until its stdin closes
//   ACCESS_TTL=5           seconds an access token lives (default 600)
//
// The grants, the client authentication and the errors are the library's. Ours are the store, the
// resource, and what a test needs to steer and to judge:
//
//   POST /token, /token/revocation    the library
//   GET|POST /resource                200 {"ok":true} for a live token, else 401 + WWW-Authenticate
//   POST /control/sign-in             {"client_id":".."} -> {"refresh_token":".."}: a user signed in
//   POST /control/revoke-access       every access token dies, grants live -> {"revoked":n}
//   POST /control/ttl                 {"access":seconds}: for tokens issued from now on
//   POST /control/delay               {"token_before_ms":n,"token_after_ms":n,"resource_ms":n}
//   POST /control/reset               counters, delays and life back to their start; tokens stay
//   GET  /control/counts              what reached this server, see `counts` below
//
// stdin is the leash: a test that dies, however it dies, leaves no server behind.

import { createHash, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { setImmediate, setTimeout } from 'node:timers/promises';
import Provider, { errors } from 'oidc-provider';

// stdout carries one line. Later notices of the library would hit a pipe that nobody reads.
console.log = console.info = console.error;
// We read the form of a token request before the library does, and it has a word to say on that.
console.warn = (line) => line.includes('already parsed request body') || console.error(line);

// ---------------------------------------------------------------------------------------------
// The store. The library's own is an LRU of 1,000 entries, which under load forgets tokens that
// are alive; and it rotates in two awaits (look, then consume), so overlapping uses of one refresh
// token may all win. This one forgets nothing, and `consume` compares and sets in one step.

const tables = new Map(); // model -> Map(id -> payload)
const revokedGrants = new Set();

class Store {
  constructor(model) {
    this.model = model;
    this.rows = new Map();
    tables.set(model, this.rows);
  }

  async upsert(id, payload) {
    // The loser of a race revokes the grant while the winner is still being served. What the winner
    // saves after that is dead on arrival, as it would be in a database with a foreign key.
    if (revokedGrants.has(payload.grantId)) return;
    this.rows.set(id, payload);
  }

  // Expired rows stay: the library looks at `exp` itself, and /resource tells expired from unknown.
  // A database answers in a later turn of the event loop. Without that turn a request runs from
  // `find` to `consume` undisturbed, and overlapping uses of one token never really overlap.
  async find(id) {
    const row = this.rows.get(id);
    const copy = row && structuredClone(row);
    await setImmediate();
    return copy;
  }

  // No `await` in here, so of n overlapping uses exactly one gets past. The library sees a second
  // use in `find` when the first is over; for one that overlaps, its answer is repeated here:
  // invalid_grant, and the whole family is revoked.
  async consume(id) {
    const row = this.rows.get(id);
    if (row === undefined || row.consumed) {
      if (row?.grantId) revokeGrant(row.grantId);
      throw new errors.InvalidGrant('refresh token already used');
    }
    row.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    if (this.model === 'Grant') revokeGrant(id);
    this.rows.delete(id);
  }

  async revokeByGrantId(grantId) {
    for (const [id, row] of this.rows) {
      if (row.grantId === grantId) this.rows.delete(id);
    }
  }
}

function revokeGrant(grantId) {
  if (revokedGrants.has(grantId)) return;
  revokedGrants.add(grantId);
  counts.grants_revoked += 1;
  tables.get('Grant')?.delete(grantId);
  for (const rows of tables.values()) {
    for (const [id, row] of rows) {
      if (row.grantId === grantId) rows.delete(id);
    }
  }
}

// ---------------------------------------------------------------------------------------------
// What reached the server.

const presented = new Set(); // hashes of the refresh tokens seen, for the life of the process

const counts = {};
const settings = {};

function reset() {
  Object.assign(counts, {
    token_requests: 0, // POST /token whose body arrived whole
    granted: 0, // ... answered 200 (whether or not anybody was left to read it)
    presented_twice: 0, // ... with a refresh token that had been presented before
    reuse_or_invalid_grant: 0, // ... answered invalid_grant
    invalid_client: 0, // ... answered invalid_client
    grants_revoked: 0,
    in_flight: counts.in_flight ?? 0, // between arrival at /token and the end of the answer
    max_in_flight: counts.in_flight ?? 0,
    // requests = ok + refused + no_token; expired_seen are those of `refused` that were too old.
    resource: { requests: 0, ok: 0, refused: 0, expired_seen: 0, no_token: 0 },
  });
  Object.assign(settings, {
    access: Number(process.env.ACCESS_TTL ?? 600),
    token_before_ms: 0, // the request waits before it is looked at
    token_after_ms: 0, // committed, but the answer waits
    resource_ms: 0, // the request waits before its token is looked at
  });
}
reset();

async function readBody(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function sleep(ms) {
  if (ms > 0) await setTimeout(ms);
}

async function watchToken(ctx, next) {
  // The library takes `req.body` where the stream was read already.
  try {
    ctx.req.body = await readBody(ctx.req);
  } catch {
    return; // the caller left in the middle of its request: that one never arrived
  }

  const form = new URLSearchParams(ctx.req.body.toString());
  const refreshToken = form.get('refresh_token');
  if (refreshToken !== null) {
    const hash = createHash('sha256').update(refreshToken).digest('base64');
    if (presented.has(hash)) counts.presented_twice += 1;
    presented.add(hash);
  }

  counts.token_requests += 1;
  counts.in_flight += 1;
  counts.max_in_flight = Math.max(counts.max_in_flight, counts.in_flight);
  try {
    await sleep(settings.token_before_ms);
    await next();
    if (ctx.status === 200) counts.granted += 1;
    if (ctx.body?.error === 'invalid_grant') counts.reuse_or_invalid_grant += 1;
    if (ctx.body?.error === 'invalid_client') counts.invalid_client += 1;
    // What waits here goes as soon as it need not wait so long any more.
    const committed = Date.now();
    while (Date.now() - committed < settings.token_after_ms) await sleep(1);
  } finally {
    counts.in_flight -= 1;
  }
}

// ---------------------------------------------------------------------------------------------
// The resource.

async function resource(ctx) {
  await readBody(ctx.req);
  counts.resource.requests += 1;
  await sleep(settings.resource_ms);

  const value = /^Bearer +(\S+)$/i.exec(ctx.get('authorization'))?.[1];
  if (value === undefined) {
    counts.resource.no_token += 1;
    ctx.status = 401;
    ctx.set('WWW-Authenticate', 'Bearer'); // RFC 6750, 3.1: no error code when nothing was sent
    ctx.body = { ok: false };
    return;
  }

  const old = { ignoreExpiration: true };
  const token = (await provider.AccessToken.find(value, old))
    ?? (await provider.ClientCredentials.find(value, old));
  if (token !== undefined && !token.isExpired) {
    counts.resource.ok += 1;
    ctx.body = { ok: true };
    return;
  }

  counts.resource.refused += 1;
  if (token !== undefined) counts.resource.expired_seen += 1;
  ctx.status = 401;
  ctx.set('WWW-Authenticate', 'Bearer error="invalid_token"');
  ctx.body = { ok: false };
}

// ---------------------------------------------------------------------------------------------
// The control.

const control = {
  // Through the library's own models, so that no browser is needed.
  async 'POST sign-in'({ client_id: clientId }) {
    const client = await provider.Client.find(clientId);
    if (client === undefined) throw new TypeError(`no such client: ${clientId}`);
    const scope = 'openid offline_access';
    const accountId = 'alice';
    const grant = new provider.Grant({ accountId, clientId });
    grant.addOIDCScope(scope);
    const grantId = await grant.save();
    const refreshToken = new provider.RefreshToken({
      accountId, client, grantId, scope, gty: 'authorization_code',
    });
    return { refresh_token: await refreshToken.save() };
  },

  async 'POST revoke-access'() {
    let revoked = 0;
    for (const model of ['AccessToken', 'ClientCredentials']) {
      revoked += tables.get(model)?.size ?? 0;
      tables.get(model)?.clear();
    }
    return { revoked };
  },

  async 'POST ttl'({ access }) {
    if (!Number.isInteger(access) || access < 1) throw new TypeError('access: seconds, from 1');
    settings.access = access;
    return {};
  },

  async 'POST delay'(wanted) {
    for (const [name, ms] of Object.entries(wanted)) {
      if (!name.endsWith('_ms') || !(name in settings)) throw new TypeError(`no such delay: ${name}`);
      if (!Number.isInteger(ms) || ms < 0) throw new TypeError(`${name}: milliseconds`);
    }
    Object.assign(settings, wanted);
    return {};
  },

  async 'POST reset'() {
    reset();
    return {};
  },

  async 'GET counts'() {
    return counts;
  },
};

async function steer(ctx) {
  const action = control[`${ctx.method} ${ctx.path.slice('/control/'.length)}`];
  const body = await readBody(ctx.req);
  if (action === undefined) {
    ctx.status = 404;
    ctx.body = { error: 'no such control' };
    return;
  }
  try {
    ctx.body = await action(body.length === 0 ? {} : JSON.parse(body));
  } catch (error) {
    ctx.status = 400;
    ctx.body = { error: error.message };
  }
}

// ---------------------------------------------------------------------------------------------
// The issuer.

const days = 24 * 60 * 60;

function configuration() {
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
  const machine = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [] };
  const person = {
    grant_types: ['authorization_code', 'refresh_token'],
    redirect_uris: ['https://client.example/callback'],
  };
  return {
    adapter: Store,
    clients: [
      // RFC 6749, 2.3.1: id and secret are form-encoded before they are joined by a colon. These
      // two pass only if the client does that.
      {
        ...machine,
        client_id: 'cc:odd id',
        client_secret: 'p@ss:w/rd+ %25&=~',
        token_endpoint_auth_method: 'client_secret_basic',
      },
      {
        ...machine,
        client_id: 'cc-post',
        client_secret: 'post-secret',
        token_endpoint_auth_method: 'client_secret_post',
      },
      {
        ...person,
        client_id: 'rt-client',
        client_secret: 'rt-secret',
        token_endpoint_auth_method: 'client_secret_basic',
      },
      { ...person, client_id: 'public', token_endpoint_auth_method: 'none' },
    ],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    // Without this a token passes for 15 s after its end.
    clockTolerance: 0,
    cookies: { keys: ['not a secret: no cookie is used'] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      revocation: {
        enabled: true,
        allowedPolicy: (_ctx, client, token) => client.clientId === token.clientId,
      },
    },
    findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    jwks: { keys: [{ ...key, alg: 'ES256', use: 'sig' }] },
    rotateRefreshToken: true,
    // A token's end is floor(now) + ttl: `expires_in` promises up to a second too much.
    ttl: {
      AccessToken: () => settings.access,
      ClientCredentials: () => settings.access,
      Grant: 14 * days,
      IdToken: 3600,
      RefreshToken: () => 14 * days,
    },
  };
}

let provider; // needs its own address, which is known only once somebody listens

const server = createServer((req, res) => handler(req, res));
// Node closes idle connections after 5 s, just when a client may be about to send on one.
server.keepAliveTimeout = 0;
await new Promise((ready) => { server.listen(0, '127.0.0.1', ready); });
const url = `http://127.0.0.1:${server.address().port}`;

provider = new Provider(url, configuration());
provider.on('server_error', (_ctx, error) => console.error(error));
provider.use(async (ctx, next) => {
  if (ctx.path === '/token' && ctx.method === 'POST') return watchToken(ctx, next);
  if (ctx.path === '/resource') return resource(ctx);
  if (ctx.path.startsWith('/control/')) return steer(ctx);
  return next();
});
const handler = provider.callback();

for (const over of ['end', 'close', 'error']) process.stdin.on(over, () => process.exit(0));
process.stdin.resume();
process.stdout.write(`${JSON.stringify({ url })}\n`);
