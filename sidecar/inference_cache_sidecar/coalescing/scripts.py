"""The Lua scripts of leases and streams. Each touches one key, so that it runs on a Cluster as anywhere.

The value of a lease is its holder's token (32 characters), then `o` while others may join the flight, else `c`, then `+` if somebody
waits for it, else `.`. For a while after a flight it is `-`.
"""

from typing import Final

TOKEN_LENGTH: Final = 32

ACQUIRE: Final = """
-- Take a lease that nobody holds; else say to its holder that somebody waits.
-- KEYS[1] the lease. ARGV[1] the token, ARGV[2] its time to live in ms.
-- Returns what was there before: the holder's value, '-' if a flight has ended lately, '' if there was nothing. The last two: it is taken.
local value = redis.call('GET', KEYS[1])
if value and value ~= '-' then
  if string.sub(value, 33) == 'o.' then redis.call('SET', KEYS[1], string.sub(value, 1, 33) .. '+', 'KEEPTTL') end
  return value
end
redis.call('SET', KEYS[1], ARGV[1] .. 'o.', 'PX', ARGV[2])
return value or ''
"""

RENEW: Final = """
-- Hold a lease longer, and ask anew who waits.
-- KEYS[1] the lease. ARGV[1] the token, ARGV[2] the time to live in ms.
-- Returns the value it had, '' if it is not the token's.
local value = redis.call('GET', KEYS[1]) or ''
if string.sub(value, 1, 32) ~= ARGV[1] then return '' end
redis.call('SET', KEYS[1], string.sub(value, 1, 33) .. '.', 'PX', ARGV[2])
return value
"""

WAIT: Final = """
-- Say that somebody still waits.
-- KEYS[1] the lease. ARGV[1] the token of the holder.
-- Returns 1, or 0 if it holds the lease no more.
local value = redis.call('GET', KEYS[1]) or ''
if string.sub(value, 1, 32) ~= ARGV[1] then return 0 end
if string.sub(value, 34) ~= '+' then redis.call('SET', KEYS[1], string.sub(value, 1, 33) .. '+', 'KEEPTTL') end
return 1
"""

CLOSE: Final = """
-- Let nobody else join.
-- KEYS[1] the lease. ARGV[1] the token.
-- Returns 1, or 0 if it is not the token's.
local value = redis.call('GET', KEYS[1]) or ''
if string.sub(value, 1, 32) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. 'c' .. string.sub(value, 34), 'KEEPTTL')
return 1
"""

RELEASE: Final = """
-- Give a lease back, if nobody waits or it is to be anyhow.
-- KEYS[1] the lease. ARGV[1] the token, ARGV[2] how long to say that a flight has ended, in ms, ARGV[3] '1' for anyhow.
-- Returns 1, also if it was not the token's any more; 0 if somebody waits.
local value = redis.call('GET', KEYS[1]) or ''
if string.sub(value, 1, 32) ~= ARGV[1] then return 1 end
if string.sub(value, 34) == '+' and ARGV[3] ~= '1' then return 0 end
redis.call('SET', KEYS[1], '-', 'PX', ARGV[2])
return 1
"""

APPEND: Final = """
-- Write a record, once however often it is asked for.
-- KEYS[1] the stream. ARGV[1] the record's number, ARGV[2] the record, ARGV[3] how many are kept, ARGV[4] the time to live in ms.
-- Returns 1, or 0 if it was there.
local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', ARGV[3], ARGV[1] .. '-0', 'r', ARGV[2])
if type(added) == 'table' and added.err then
  if string.find(added.err, 'equal or smaller', 1, true) then return 0 end
  return added
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
