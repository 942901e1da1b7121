//! What the server does in one step, as Lua. Each script refuses before it changes anything: one that breaks off half
//! way is not taken back.

use std::sync::OnceLock;

use redis::Cmd;
use sha1::{Digest, Sha1};

use crate::store::envelope::hex;

/// Keys: the lease, the counter of fences, the record. Arguments: the new owner, the term in milliseconds, and the
/// owners by whose names a lease was asked for whose answer was lost.
///
/// Answers the lease's number, or nothing if somebody else has it. The number comes first: a lease without one never
/// stands in the way. It is greater than that of whoever saved last even if the counter was lost, in a failover say.
pub(super) static LEASE: Script = Script::new(
    r"
local holder = redis.call('GET', KEYS[1])
if holder then
  local lost = false
  for i = 3, #ARGV do lost = lost or holder == ARGV[i] end
  if not lost then return false end
end
local number = redis.call('INCR', KEYS[2])
local saved = tonumber(redis.call('HMGET', KEYS[3], 'fence')[1] or 0)
if saved and number <= saved then
  number = saved + 1
  redis.call('SET', KEYS[2], string.format('%d', number))
end
if holder then redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
return number
",
);

/// Key: the lease. Arguments: its owner, the term in milliseconds. Answers 1, or 0 if it is another's or none's.
pub(super) static RENEW: Script = Script::new(
    r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
",
);

/// Key: the lease. Argument: its owner.
pub(super) static RELEASE: Script = Script::new(
    r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
",
);

/// Key: the record. Arguments: the generation that is expected, that of the new record, the fence, the channel, the body.
///
/// Answers 1, or 0 if it was overtaken. It does not ask whether the lease still lasts: who was not overtaken may save
/// what it has rotated. It is published first, so that an ACL without the channel refuses before anything is kept;
/// nobody hears it before the script is through.
pub(super) static SAVE: Script = Script::new(
    r"
local kept = redis.call('HMGET', KEYS[1], 'generation', 'fence')
if not kept[1] and redis.call('EXISTS', KEYS[1]) == 1 then return redis.error_reply('FOREIGN hash') end
local fence = tonumber(kept[2] or 0)
if not fence then return redis.error_reply('FOREIGN fence') end
if (kept[1] or '0') ~= ARGV[1] or fence > tonumber(ARGV[3]) then return 0 end
redis.call('PUBLISH', ARGV[4], ARGV[2])
redis.call('HSET', KEYS[1], 'generation', ARGV[2], 'fence', ARGV[3], 'body', ARGV[5])
return 1
",
);

/// What a script answers about a record that it did not write.
pub(super) const FOREIGN: &str = "FOREIGN";

pub(super) struct Script {
    text: &'static str,
    /// By which a server knows a script that it ran before.
    hash: OnceLock<String>,
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: OnceLock::new(),
        }
    }

    /// It, by its hash: good on a server that ran it since it started.
    pub(super) fn known(&self, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        let hash = self.hash.get_or_init(|| hex(&Sha1::digest(self.text)));
        called("EVALSHA", hash, keys, arguments)
    }

    /// It, in full.
    pub(super) fn whole(&self, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        called("EVAL", self.text, keys, arguments)
    }
}

fn called(command: &str, script: &str, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
    let mut command = redis::cmd(command);
    command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
    command
}
