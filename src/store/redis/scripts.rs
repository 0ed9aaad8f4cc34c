//! The Lua scripts, one for each operation. Redis runs each script atomically
//! (<https://redis.io/docs/latest/develop/programmability/eval-intro/>).
//!
//! `KEYS[1]` is the key of the event, and `KEYS[2]` the second key beside it.

use std::sync::LazyLock;

use redis::Script;

/// The beginning of every script.
///
/// `elsewhere` returns whether the Python router has the key, which stores the string `1` there.
/// Any other error or value is an error of this router, and must not count as a delivered event.
///
/// `clock` returns the time, in milliseconds, by which leases and lifetimes end. It is the server's
/// own time (<https://redis.io/docs/latest/commands/time/>), unless a test passes a time. `left`
/// returns the time from `now` until another time. Both are read and written as text, which a reply
/// carries unchanged.
const COMMON: &str = "
    local function clock(given)
        if given ~= '' then return tonumber(given) end
        local time = redis.call('TIME')
        return time[1] * 1000 + math.floor(time[2] / 1000)
    end
    local function text(milliseconds) return string.format('%.0f', milliseconds) end
    local function left(time, now) return text(tonumber(time) - now) end
    local function elsewhere(main)
        if not main.err then return false end
        if main.err:find('WRONGTYPE') and redis.call('TYPE', KEYS[1]).ok == 'string'
            and redis.call('GET', KEYS[1]) == '1' then return true end
        error(main.err)
    end
";

/// A script, and its SHA-1 hash. A server that has received the code runs it by the hash.
pub(super) struct Lua {
    pub code: String,
    pub sha1: String,
}

impl Lua {
    fn new(code: &str) -> Self {
        let code = format!("{COMMON}{code}");
        let sha1 = Script::new(&code).get_hash().to_owned();
        Self { code, sha1 }
    }
}

/// Claims a key. Arguments: a test's time, the length of the lease, owner, details, time to keep
/// the details, and the digest of the body if the sender named the event.
pub(super) static CLAIM: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local now, owner, details = clock(ARGV[1]), ARGV[3], ARGV[4]
         local until_ = text(now + ARGV[2])
         local main = redis.pcall('HMGET', KEYS[1], 'owner', 'until', 'delivered_at', 'expires_at')
         if elsewhere(main) then
             local failed_at = redis.call('HGET', KEYS[2], 'failed_at')
             redis.call('UNLINK', KEYS[2])
             return {'elsewhere', failed_at}
         end
         local held_by, held_until, delivered_at, expires_at = unpack(main)
         local forgotten = expires_at and tonumber(expires_at) <= now
         if delivered_at and not forgotten then
             return {'delivered', unpack(redis.call('HMGET', KEYS[1], 'details', 'attempts',
                 'delivered_at', 'reply_head', 'reply_body'))}
         end
         if held_until and held_by ~= owner and tonumber(held_until) > now then
             return {'in flight', left(held_until, now), redis.call('HGET', KEYS[2], 'details')}
         end
         local known, attempts, failed_at
         if not forgotten then
             known, attempts, failed_at = unpack(redis.call('HMGET', KEYS[2], 'details',
                 'attempts', 'failed_at'))
         end
         if ARGV[6] ~= '' and known and cjson.decode(known).digest ~= ARGV[6] then
             return {'other body', known}
         end
         redis.call('HSET', KEYS[2], 'details', known or details, 'owner', owner, 'until', until_)
         if not failed_at then redis.call('PEXPIRE', KEYS[2], ARGV[5]) end
         redis.call('DEL', KEYS[1])
         redis.call('HSET', KEYS[1], 'owner', owner, 'until', until_)
         redis.call('PEXPIRE', KEYS[1], ARGV[2])
         return {'won', known or details, attempts or false}",
    )
});

/// Marks an event as delivered. Arguments: a test's time, owner, details, attempts, time of
/// delivery, TTL, and head and body of the reply. A lease that ran out but was not taken over still
/// counts. In that case, only the second key has the owner. If there was a dead letter, its time is
/// stored as well: a repetition needs it if the first answer was lost before the letter was removed
/// from the list.
pub(super) static FINISH: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'owner', 'failed_at')
         if elsewhere(main) then return {'lost'} end
         local owner = main[1] or redis.call('HGET', KEYS[2], 'owner')
         if owner ~= ARGV[2] then return {'lost'} end
         local failed_at = main[2] or redis.call('HGET', KEYS[2], 'failed_at')
         redis.call('DEL', KEYS[1])
         redis.call('HSET', KEYS[1], 'owner', owner, 'details', ARGV[3], 'attempts', ARGV[4],
             'delivered_at', ARGV[5], 'expires_at', text(clock(ARGV[1]) + ARGV[6]))
         if ARGV[7] ~= '' then
             redis.call('HSET', KEYS[1], 'reply_head', ARGV[7], 'reply_body', ARGV[8])
         end
         if failed_at then redis.call('HSET', KEYS[1], 'failed_at', failed_at) end
         redis.call('PEXPIRE', KEYS[1], ARGV[6])
         redis.call('UNLINK', KEYS[2])
         return {'stored', failed_at}",
    )
});

/// Stores a dead letter. Arguments: owner, details, attempts, now, failure, head and body of the
/// delivery, and `free` or `hold`. If the lease was lost, returns the existing letter's time.
pub(super) static FAIL: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'owner', 'delivered_at')
         local is_elsewhere = elsewhere(main)
         local owner = main[1] or redis.call('HGET', KEYS[2], 'owner')
         if is_elsewhere or main[2] or owner ~= ARGV[1] then
             return {'lost', redis.call('HGET', KEYS[2], 'failed_at')}
         end
         redis.call('HSET', KEYS[2], 'owner', owner, 'details', ARGV[2], 'attempts', ARGV[3],
             'failed_at', ARGV[4], 'failure', ARGV[5], 'head', ARGV[6], 'body', ARGV[7])
         redis.call('PERSIST', KEYS[2])
         if ARGV[8] == 'free' then
             redis.call('DEL', KEYS[1])
             redis.call('HDEL', KEYS[2], 'until')
         end
         return {'stored'}",
    )
});

/// Reads an event. Argument: a test's time.
pub(super) static GET: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local now = clock(ARGV[1])
         local main = redis.pcall('HMGET', KEYS[1], 'details', 'attempts', 'delivered_at',
             'reply_head', 'reply_body', 'expires_at')
         if elsewhere(main) then
             return {'elsewhere', unpack(redis.call('HMGET', KEYS[2], 'details', 'failed_at',
                 'failure'))}
         end
         if main[6] and tonumber(main[6]) <= now then return {'forgotten'} end
         if main[3] then return {'delivered', unpack(main, 1, 5)} end
         local open = redis.call('HMGET', KEYS[2], 'details', 'attempts', 'owner', 'until',
             'failed_at', 'failure')
         if open[4] then open[4] = left(open[4], now) end
         return {'open', unpack(open)}",
    )
});

/// Deletes an event that has a dead letter. Argument: a test's time.
pub(super) static DISCARD: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'until', 'delivered_at')
         local failed_at = redis.call('HGET', KEYS[2], 'failed_at')
         if elsewhere(main) then
             redis.call('UNLINK', KEYS[2])
             return {failed_at and 'discarded' or 'none', failed_at}
         end
         if main[2] or not failed_at then return {'none'} end
         local now = clock(ARGV[1])
         if main[1] and tonumber(main[1]) > now then return {'in flight', left(main[1], now)} end
         redis.call('UNLINK', KEYS[1], KEYS[2])
         return {'discarded', failed_at}",
    )
});

/// Removes an entry from the list of dead letters if it still has that time. A later failure is
/// listed before its letter is stored, and its entry must stay. `KEYS[1]` is the list. Arguments:
/// entry, time.
pub(super) static UNLIST: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then
             redis.call('ZREM', KEYS[1], ARGV[1])
         end
         return {}",
    )
});
