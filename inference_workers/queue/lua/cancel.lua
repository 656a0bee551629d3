-- prefix, id → 'removed' from the queue and ended, 'flagged' for its worker, or 'unknown'
local id = ARGV[2]
local job = key('job', id)
local f = redis.call('HMGET', job, 'state', 'model', 'team', 'worker')
if f[1] == 'queued' then
  pull(id, f[2], f[3])
  deactivate(f[2], f[3])
  conclude(id, CANCELLED, now_ms())
  return 'removed'
end
if f[1] == 'running' then
  redis.call('HSET', job, 'cancel', '1')
  redis.call('SADD', key('worker', f[4], 'cancels'), id)
  return 'flagged'
end
return 'unknown'
