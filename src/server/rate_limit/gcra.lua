-- A token bucket as GCRA keeps it: the time at which it will be full again, in microseconds of this server's
-- clock. KEYS[1] is the bucket; ARGV what to do, the cost, and what a full bucket holds, in microseconds of
-- refilling. Returns the time to wait, 0 if there is none, and what is used.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local change, cost, capacity = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local before = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local full = before
if change == 'take' then
  local wait = before + cost - now - capacity
  if wait > 1000 then -- less is rounding
    return {math.ceil(wait), before - now}
  end
  full = before + cost
elseif change == 'take_up_to' then
  full = math.max(before, math.min(before + cost, now + capacity))
elseif change == 'refund' then
  full = math.max(before - cost, now)
end
if full ~= before then
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
end
return {0, full - now}
