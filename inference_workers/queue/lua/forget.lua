-- prefix, id, seconds, only if ended → 1 when done
-- The job's row is settled: take it off every list, drop the payload, let hash and log expire. What
-- is left for a while answers "ended" to a late append and "known" to a second enqueue.
local id, seconds = ARGV[2], tonumber(ARGV[3])
local job = key('job', id)
local f = redis.call('HMGET', job, 'state', 'model', 'team', 'worker')
redis.call('ZREM', key('ended'), id)
if not f[1] then
  redis.call('DEL', key('log', id))
  return 0
end
if f[1] ~= 'ended' then
  if ARGV[4] == '1' then return 0 end
  if f[1] == 'queued' then
    pull(id, f[2], f[3])
    deactivate(f[2], f[3])
  end
  unhold(id, f[4])
  redis.call('HSET', job, 'state', 'ended', 'ended_at', now_ms())
end
redis.call('HDEL', job, 'payload')
if seconds > 0 then
  redis.call('EXPIRE', job, seconds)
  redis.call('EXPIRE', key('log', id), seconds)
else
  redis.call('DEL', job, key('log', id))
end
return 1
