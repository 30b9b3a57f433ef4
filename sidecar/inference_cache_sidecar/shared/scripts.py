"""The Lua scripts of the shared tier. Each touches one key, so that it runs on a Cluster as anywhere.

Those that must go through also where the store's memory is full begin with PERSIST: Redis refuses a script's first write in that
case, unless it frees or takes nothing, and no later one. Flushes and leases take some bytes each; without them nothing could be served.
"""

from typing import Final

RAISE: Final = """
-- Raise an epoch above all that it has been.
-- KEYS[1] the epoch. ARGV[1] the value known to the caller, ARGV[2] its time to live in ms, 0 for none.
-- Returns the new value: max(stored + 1, known + 1, now in ms).
redis.call('PERSIST', KEYS[1])
local now = redis.call('TIME')
local value = math.max(now[1] * 1000 + math.floor(now[2] / 1000), tonumber(ARGV[1]) + 1)
local stored = tonumber(redis.call('GET', KEYS[1]) or '0')
if stored and stored >= value and stored < 1e15 then value = stored + 1 end
local text = string.format('%.0f', value)
if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[1], text, 'PX', ARGV[2]) else redis.call('SET', KEYS[1], text) end
return text
"""

LEARN: Final = """
-- The value of an epoch, made if there is none.
-- KEYS[1] the epoch. ARGV[1] its time to live in ms, 0 for none.
-- Returns the value.
redis.call('PERSIST', KEYS[1])
local stored = redis.call('GET', KEYS[1])
if not stored then
  local now = redis.call('TIME')
  stored = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
  redis.call('SET', KEYS[1], stored)
end
if tonumber(ARGV[1]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return stored
"""

ANNOUNCE: Final = """
-- Say that epochs were raised.
-- KEYS[1] the stream of raises. ARGV[1] the last id known to the caller, ARGV[2] how many raises are kept, then in turn the digest of
-- each name and its new value.
-- Returns the id of the last one, above ARGV[1] also where the clock went back.
redis.call('PERSIST', KEYS[1])
local known, id = tonumber(string.match(ARGV[1], '^%d+')), '*'
local now = redis.call('TIME')
if now[1] * 1000 + math.floor(now[2] / 1000) <= known then
  local last = '0-0'
  if redis.call('EXISTS', KEYS[1]) == 1 then
    local info = redis.call('XINFO', 'STREAM', KEYS[1])
    for place = 1, #info, 2 do if info[place] == 'last-generated-id' then last = info[place + 1] end end
  end
  if tonumber(string.match(last, '^%d+')) <= known then id = string.format('%.0f-0', known + 1) end
end
local added
for place = 3, #ARGV, 2 do
  added = redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[2], id, 'n', ARGV[place], 'v', ARGV[place + 1])
  id = '*'
end
return added
"""

READ: Final = """
-- What was raised since.
-- KEYS[1] the stream of raises. ARGV[1] the id of the last raise known to the caller, '0-0' for none.
-- Returns {the server's run id, 1 if that raise is there (or is none), how many raises are kept, and for each raise since, or each of
-- all if that one is not there, in turn its id and its fields}.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local known = ARGV[1] == '0-0' or #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 1
local raises = {}
for _, raise in ipairs(redis.call('XRANGE', KEYS[1], known and '(' .. ARGV[1] or '-', '+')) do
  raises[#raises + 1] = raise[1]
  raises[#raises + 1] = raise[2]
end
return {run, known and 1 or 0, redis.call('XLEN', KEYS[1]), raises}
"""

REGISTER: Final = """
-- Say that a replica lives, and up to which raise it knows.
-- KEYS[1] the replicas. ARGV[1] the replica, ARGV[2] the id of the last raise it knows, ARGV[3] the run id of the server it read that
-- from, ARGV[4] when others count as gone, in ms.
-- Returns {1 if it was registered before, for each replica in turn its name and what it registered}.
redis.call('PERSIST', KEYS[1])
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local added = redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s %s', ms, ARGV[2], ARGV[3]))
local all, left = redis.call('HGETALL', KEYS[1]), {}
for place = 1, #all, 2 do
  local seen = tonumber(string.match(all[place + 1], '^%d+') or '0')
  if seen < ms - tonumber(ARGV[4]) then
    redis.call('HDEL', KEYS[1], all[place])
  else
    left[#left + 1] = all[place]
    left[#left + 1] = all[place + 1]
  end
end
return {1 - added, left}
"""

REPLICAS: Final = """
-- Who lives.
-- KEYS[1] the replicas.
-- Returns {now in ms, and for each replica its name and what it registered}.
local now = redis.call('TIME')
return {string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)), redis.call('HGETALL', KEYS[1])}
"""
