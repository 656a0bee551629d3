-- prefix, grace ms → jobs given back or ended
-- A server that has just started can't judge: while it was away nobody could renew.
local t = now_ms()
local touched = {}
local up = tonumber(redis.call('INFO', 'server'):match('uptime_in_seconds:(%d+)') or '0') * 1000
if up >= tonumber(ARGV[2]) then
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '-inf', t)) do
    for _, id in ipairs(give_back_all(worker, true, t)) do touched[#touched + 1] = id end
    drop_worker(worker)
  end
end
-- Jobs whose deadline passed while they waited.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('deadlines'), '-inf', t, 'LIMIT', 0, 100)) do
  local f = redis.call('HMGET', key('job', id), 'state', 'model', 'team')
  if f[1] == 'queued' then
    pull(id, f[2], f[3])
    deactivate(f[2], f[3])
    conclude(id, DEADLINE, t)
    touched[#touched + 1] = id
  else
    redis.call('ZREM', key('deadlines'), id)
  end
end
return touched
