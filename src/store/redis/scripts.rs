//! The Lua scripts, one for each operation. Redis runs each script atomically
//! (<https://redis.io/docs/latest/develop/programmability/eval-intro/>).
//!
//! `KEYS[1]` is the key of the event, and `KEYS[2]` the second key beside it. Further keys are the
//! lists of the inboxes that the event may be on. In a cluster, they are absent, because they are in
//! other slots.

use std::sync::LazyLock;

use redis::Script;

/// The beginning of every script.
///
/// `elsewhere` returns whether the Python router has the key: it stores the string `1` there. Any
/// other string there, and any other error, ends the script with an error, and does not count as a
/// delivered event.
///
/// `clock` returns the time, in milliseconds, by which leases and lifetimes end. It is the server's
/// own time (<https://redis.io/docs/latest/commands/time/>), unless a test passes a time. `left`
/// returns the time from `now` until another time. The scripts read and write times as text,
/// which a reply carries unchanged.
///
/// If the key is not free, `taken` returns the reply to the claim or the acceptance. Otherwise, it
/// returns no reply, but the details, the attempts and the time of the failure that the event
/// already has. `digest` is the digest of the body if the sender named the event, and otherwise
/// empty. `list` puts the event on the list of its destination's inbox, and `unlist` takes it off. If
/// that list is not among the keys, `unlisted` returns the reply that asks for it. The script has not
/// written anything at that time.
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
    local function route_of(details)
        local is_read, route = pcall(function() return cjson.decode(details).route end)
        -- Details that cannot be read name no list.
        return is_read and type(route) == 'string' and route or nil
    end
    local function list_of(details)
        local route = route_of(details)
        if not route then return nil end
        local ending = ':' .. route
        for i = 3, #KEYS do
            if KEYS[i]:sub(-#ending) == ending then return KEYS[i] end
        end
    end
    local function unlisted(details)
        local route = #KEYS > 2 and details and route_of(details)
        if not route or list_of(details) then return nil end
        return {'unlisted', route}
    end
    local function list(due, details)
        -- Without its details, the list of an event is unknown.
        local name = details and list_of(details)
        if name then redis.call('ZADD', name, due, KEYS[1]) end
    end
    local function unlist() for i = 3, #KEYS do redis.call('ZREM', KEYS[i], KEYS[1]) end end
    local function taken(now, owner, digest)
        local main = redis.pcall('HMGET', KEYS[1], 'owner', 'until', 'delivered_at', 'expires_at',
            'accepted')
        if elsewhere(main) then
            local failed_at = redis.call('HGET', KEYS[2], 'failed_at')
            redis.call('UNLINK', KEYS[2])
            return {'elsewhere', failed_at}
        end
        local held_by, held_until, delivered_at, expires_at, accepted = unpack(main, 1, 5)
        local forgotten = expires_at and tonumber(expires_at) <= now
        if delivered_at and not forgotten then
            return {'delivered', unpack(redis.call('HMGET', KEYS[1], 'details', 'attempts',
                'delivered_at', 'reply_head', 'reply_body'))}
        end
        local mine = held_by == owner
        if held_until and not accepted and not mine and tonumber(held_until) > now then
            return {'in flight', left(held_until, now), redis.call('HGET', KEYS[2], 'details')}
        end
        local known, attempts, failed_at
        if not forgotten then
            known, attempts, failed_at = unpack(redis.call('HMGET', KEYS[2], 'details',
                'attempts', 'failed_at'), 1, 3)
        end
        if digest ~= '' and known and cjson.decode(known).digest ~= digest then
            return {'other body', known}
        end
        if accepted and not mine then return {'accepted', known} end
        return nil, known, attempts, failed_at
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
/// the details, and the digest of the body if the sender named the event. Returns the details only if
/// the event has earlier ones.
pub(super) static CLAIM: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local now, owner, details = clock(ARGV[1]), ARGV[3], ARGV[4]
         local until_ = text(now + ARGV[2])
         local answer, known, attempts, failed_at = taken(now, owner, ARGV[6])
         if answer then return answer end
         redis.call('HSET', KEYS[2], 'details', known or details, 'owner', owner, 'until', until_)
         if not failed_at then redis.call('PEXPIRE', KEYS[2], ARGV[5]) end
         redis.call('DEL', KEYS[1])
         redis.call('HSET', KEYS[1], 'owner', owner, 'until', until_)
         redis.call('PEXPIRE', KEYS[1], ARGV[2])
         return {'won', known or false, attempts or false}",
    )
});

/// Returns the answer to an acceptance of a key that is not free, or `free`. Arguments: a test's time,
/// owner, and the digest of the body if the sender named the event.
pub(super) static LOOK: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local answer = taken(clock(ARGV[1]), ARGV[2], ARGV[3])
         return answer or {'free'}",
    )
});

/// Takes an event into the inbox. Arguments: a test's time, owner, details, the digest of the body
/// if the sender named the event, the acceptance, the pause before the first attempt, head and body
/// of the delivery, and the pause before the time in the list. Returns the details, the time for
/// the list, and the time of the dead letter that is cleared. The time of the letter is stored as
/// well: if the answer is lost, a repetition or the end of the event uses it to remove the letter
/// from the list. The field `acceptor` keeps the owner of the acceptance. By it, a repetition sees
/// that the event was accepted, even if it has failed since.
pub(super) static ACCEPT: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local now, owner, details = clock(ARGV[1]), ARGV[2], ARGV[3]
         local answer, known, attempts, failed_at = taken(now, owner, ARGV[4])
         if answer then return answer end
         if redis.call('HGET', KEYS[2], 'acceptor') == owner
             and redis.call('EXISTS', KEYS[1]) == 0 then return {'stored', known} end
         -- Details that cannot be read are replaced.
         details = known and route_of(known) and known or details
         local other = unlisted(details)
         if other then return other end
         local due, look = text(now + ARGV[6]), text(now + ARGV[9])
         failed_at = failed_at or redis.call('HGET', KEYS[1], 'failed_at')
         redis.call('DEL', KEYS[1])
         redis.call('HSET', KEYS[1], 'owner', owner, 'accepted', ARGV[5], 'due', due,
             'look', look)
         if failed_at then redis.call('HSET', KEYS[1], 'failed_at', failed_at) end
         redis.call('HSET', KEYS[2], 'details', details, 'owner', owner, 'acceptor', owner,
             'head', ARGV[7], 'body', ARGV[8])
         redis.call('HDEL', KEYS[2], 'until', 'failed_at', 'failure')
         redis.call('PERSIST', KEYS[2])
         list(look, details)
         return {'stored', details, look, failed_at}",
    )
});

/// Takes a lease on an event of the inbox. Arguments: a test's time, owner, the length of the
/// lease, and `early` or nothing. If the event is not due, returns the time of its next attempt or
/// the end of its lease, and the time that is left until then.
pub(super) static TAKE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local now, owner = clock(ARGV[1]), ARGV[2]
         local main = redis.pcall('HMGET', KEYS[1], 'owner', 'until', 'accepted', 'due')
         if elsewhere(main) or not main[3] then return {'gone'} end
         if main[1] ~= owner then
             local held = main[2] and tonumber(main[2]) > now
             if held or (tonumber(main[4]) > now and ARGV[4] ~= 'early') then
                 return {'not due', main[4], left(main[4], now)}
             end
         end
         local other = unlisted(redis.call('HGET', KEYS[2], 'details'))
         if other then return other end
         local until_ = text(now + ARGV[3])
         redis.call('HSET', KEYS[1], 'owner', owner, 'until', until_, 'due', until_,
             'look', until_)
         redis.call('HSET', KEYS[2], 'owner', owner, 'until', until_)
         local kept = redis.call('HMGET', KEYS[2], 'details', 'attempts', 'head', 'body')
         list(until_, kept[1])
         return {'won', until_, main[3], unpack(kept)}",
    )
});

/// Gives an event back to the inbox. Arguments: a test's time, owner, the pause, the acceptance,
/// attempts, and the pause before the time in the list. Returns that time.
pub(super) static POSTPONE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'owner', 'accepted')
         if elsewhere(main) or not main[2] or main[1] ~= ARGV[2] then return {'lost'} end
         local now = clock(ARGV[1])
         local due, look = text(now + ARGV[3]), text(now + ARGV[6])
         redis.call('HSET', KEYS[1], 'accepted', ARGV[4], 'due', due, 'look', look)
         redis.call('HSET', KEYS[2], 'attempts', ARGV[5])
         redis.call('HDEL', KEYS[1], 'until')
         redis.call('HDEL', KEYS[2], 'until')
         list(look, redis.call('HGET', KEYS[2], 'details'))
         return {'stored', look}",
    )
});

/// Gives back an event that was taken and cannot be read. It stays due. Arguments: a test's time, owner,
/// and the pause before the time in the list. Returns that time.
pub(super) static PUT_OFF: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'owner', 'accepted')
         if elsewhere(main) or not main[2] or main[1] ~= ARGV[2] then return {'lost'} end
         local now = clock(ARGV[1])
         local look = text(now + ARGV[3])
         redis.call('HSET', KEYS[1], 'due', text(now), 'look', look)
         redis.call('HDEL', KEYS[1], 'until')
         redis.call('HDEL', KEYS[2], 'until')
         for i = 3, #KEYS do redis.call('ZADD', KEYS[i], 'XX', look, KEYS[1]) end
         return {'stored', look}",
    )
});

/// Adds an entry to the list of an inbox before its event is accepted. `KEYS[1]` is the list.
/// Arguments: the entry and its time. An entry with an earlier time stays as it is: the event may
/// be in the inbox already, and a duplicate must not delay it. An entry with a mark is replaced
/// ([`LOOKED`]).
pub(super) static ENLIST: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local score = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 'inf')
         if score % 1 ~= 0 or score > tonumber(ARGV[2]) then
             redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
         end
         return {}",
    )
});

/// Changes the time of an entry of the list of an inbox, if it still has the time that it was read
/// with. `KEYS[1]` is the list. Arguments: a test's time, the entry, that time, and the pause before
/// the new time. Returns the new time.
pub(super) static RELIST: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local score = redis.call('ZSCORE', KEYS[1], ARGV[2])
         if not score or math.ceil(tonumber(score)) ~= tonumber(ARGV[3]) then return {'other'} end
         local look = text(clock(ARGV[1]) + ARGV[4])
         redis.call('ZADD', KEYS[1], look, ARGV[2])
         return {'moved', look}",
    )
});

/// Corrects the entries of the lists of inboxes that lead to nothing, or to an event with a later
/// time. The keys are the lists. Arguments: a test's time, the entry, a pause, and the event's time or
/// nothing.
///
/// In a cluster, an entry is written before its event. So an entry without an event gets a mark,
/// half a millisecond, and is looked at again after the pause. Only the second look removes it. If
/// the event is accepted in between, the acceptance removes the mark.
pub(super) static LOOKED: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local now = clock(ARGV[1])
         for _, name in ipairs(KEYS) do
             local score = tonumber(redis.call('ZSCORE', name, ARGV[2]) or 'inf')
             if score <= now then
                 if ARGV[4] ~= '' then
                     redis.call('ZADD', name, ARGV[4], ARGV[2])
                 elseif score % 1 == 0 then
                     redis.call('ZADD', name, text(now + ARGV[3]) .. '.5', ARGV[2])
                 else
                     redis.call('ZREM', name, ARGV[2])
                 end
             end
         end
         return {}",
    )
});

/// Marks an event as delivered. Arguments: a test's time, owner, details, attempts, time of
/// delivery, TTL, and head and body of the reply. A lease that ran out but was not taken over still
/// counts. Then the first key has expired and only the second one has the owner, unless the event
/// is in the inbox, where the first key does not expire. If there was a dead letter, the script
/// also stores its time. If the first answer is lost, a repetition uses it to remove the letter
/// from the list. Also returns the time at which the lease put the event on the list of the inbox,
/// if it was there.
pub(super) static FINISH: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'owner', 'failed_at', 'due')
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
         unlist()
         return {'stored', failed_at, main[3]}",
    )
});

/// Stores a dead letter. Arguments: owner, details, attempts, now, failure, head and body of the
/// delivery, `free` or `hold`, and a test's time. Returns the time in the list of the inbox, if the
/// event was there, and the time of an earlier letter. If the lease was lost, returns the existing
/// letter's time.
pub(super) static FAIL: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'owner', 'delivered_at', 'due')
         local is_elsewhere = elsewhere(main)
         local owner = main[1] or redis.call('HGET', KEYS[2], 'owner')
         if is_elsewhere or main[2] or owner ~= ARGV[1] then
             return {'lost', redis.call('HGET', KEYS[2], 'failed_at')}
         end
         local before = redis.call('HGET', KEYS[2], 'failed_at')
         redis.call('HSET', KEYS[2], 'owner', owner, 'details', ARGV[2], 'attempts', ARGV[3],
             'failed_at', ARGV[4], 'failure', ARGV[5], 'head', ARGV[6], 'body', ARGV[7])
         redis.call('PERSIST', KEYS[2])
         if ARGV[8] == 'free' then
             redis.call('DEL', KEYS[1])
             redis.call('HDEL', KEYS[2], 'until')
         elseif main[3] then
             local held = redis.call('HGET', KEYS[1], 'until') - clock(ARGV[9])
             redis.call('HDEL', KEYS[1], 'accepted', 'due', 'look', 'failed_at')
             redis.call('PEXPIRE', KEYS[1], text(math.max(held, 1)))
         end
         unlist()
         return {'stored', main[3], before}",
    )
});

/// Reads an event. Argument: a test's time.
pub(super) static GET: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local now = clock(ARGV[1])
         local main = redis.pcall('HMGET', KEYS[1], 'details', 'attempts', 'delivered_at',
             'reply_head', 'reply_body', 'expires_at', 'accepted', 'due')
         if elsewhere(main) then
             return {'elsewhere', unpack(redis.call('HMGET', KEYS[2], 'details', 'failed_at',
                 'failure'))}
         end
         if main[6] and tonumber(main[6]) <= now then return {'forgotten'} end
         if main[3] then return {'delivered', unpack(main, 1, 5)} end
         local open = redis.call('HMGET', KEYS[2], 'details', 'attempts', 'owner', 'until',
             'failed_at', 'failure')
         if open[4] then open[4] = left(open[4], now) end
         if main[7] then return {'accepted', main[7], left(main[8], now), unpack(open, 1, 4)} end
         return {'open', unpack(open)}",
    )
});

/// Deletes an event that has a dead letter or is in the inbox. Argument: a test's time. Returns the
/// time in the list of dead letters, the details, and the time in the list of the inbox.
pub(super) static DISCARD: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local main = redis.pcall('HMGET', KEYS[1], 'until', 'delivered_at', 'due', 'failed_at',
             'look')
         local failed_at = redis.call('HGET', KEYS[2], 'failed_at')
         if elsewhere(main) then
             redis.call('UNLINK', KEYS[2])
             return {failed_at and 'discarded' or 'none', failed_at}
         end
         if main[2] or not (failed_at or main[3]) then return {'none'} end
         local now = clock(ARGV[1])
         if main[1] and tonumber(main[1]) > now then return {'in flight', left(main[1], now)} end
         local details = redis.call('HGET', KEYS[2], 'details')
         local other = unlisted(details)
         if other then return other end
         redis.call('UNLINK', KEYS[1], KEYS[2])
         unlist()
         return {'discarded', failed_at or main[4], details, main[5] or main[3]}",
    )
});

/// Removes an entry from a list if it still has that time. An entry with a later time must stay: a
/// later failure, for example, is listed before its letter is stored. `KEYS[1]` is the list.
/// Arguments: entry, time.
pub(super) static UNLIST: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then
             redis.call('ZREM', KEYS[1], ARGV[1])
         end
         return {}",
    )
});
